"""Wait, with a time-out, until a call on a descriptor would not block."""

import os
import select
from collections.abc import Callable
from errno import ETIMEDOUT
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from virtfs.client.folder import named

T = TypeVar("T")

_LONGEST: Final = (2**31 - 1) // 1000 - 1  # seconds; poll(2) takes milliseconds as an int


def read(fd: int, size: int, path: Path, timeout: float | None, lacking: str = "nothing arrived") -> bytes:
    """Read from a descriptor, and wait at most `timeout` seconds for data; None waits for ever.

    lacking: what has not happened when the time is over, for the message of TimeoutError.
    A descriptor that is read with a time-out gets O_NONBLOCK, because another reader may take the data after poll(2)
    has reported them. OSError: errors of read(2), with the path. TimeoutError: no data arrived in time.
    """
    if timeout is not None and os.get_blocking(fd):
        os.set_blocking(fd, False)
    return repeat(lambda: os.read(fd, size), fd, select.POLLIN, path, timeout, lacking)


def repeat(
    call: Callable[[], T], fd: int, events: int, path: Path, timeout: float | None, lacking: str = "nothing arrived"
) -> T:
    """Repeat a call until it no longer fails with EAGAIN. In between, wait for `events`. Errors: as for read()."""
    end = end_of(timeout)
    while True:
        try:
            return call()
        except BlockingIOError:
            pass
        except OSError as error:
            raise named(error, path) from None
        left = None if end is None else max(0.0, end - monotonic())
        poller = select.poll()
        poller.register(fd, events)
        # poll(2) takes whole milliseconds. Round up, because the wait must not be shorter than the caller's time-out.
        if not poller.poll(None if left is None else int(left * 1000) + (left > 0)) and left is not None:
            raise TimeoutError(ETIMEDOUT, f"{lacking} within {timeout:g} s", str(path))


def end_of(timeout: float | None) -> float | None:
    """Return the time of monotonic() when a time-out ends, or None if it never does.

    TypeError: it is not a number. ValueError: it is a number that is no time, or longer than poll(2) can wait.
    """
    if timeout is None or timeout == inf:
        return None
    try:
        end = monotonic() + timeout
    except TypeError:
        raise TypeError(f"timeout={timeout!r} is not a number of seconds, such as 5") from None
    if not timeout <= _LONGEST:
        raise ValueError(f"timeout={timeout!r} is not a number of seconds up to {_LONGEST}: None waits for ever")
    return end
