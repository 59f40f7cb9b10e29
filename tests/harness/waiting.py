"""Waits for conditions. Nothing here is a fixed pause."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Time limit in seconds for something that should happen at once. It takes a fraction of a second, but on a busy machine
# any step may take several. tests/test_waits.py refuses shorter limits in tests.
PATIENCE = 20.0
_LOOK = 0.005  # seconds between two checks of a condition
_READ = {"x86_64": "0", "aarch64": "63", "riscv64": "63"}.get(os.uname().machine, "")


class Stuck(AssertionError):
    """The server or a program hangs: a condition was not met in time."""


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Check a condition every few milliseconds until it holds. Stuck: it has not held within `seconds`."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not true():
        if time.monotonic() > end:
            raise Stuck(f"not within {seconds:g} s: {what}")
        pause.wait(_LOOK)


def waits_in_read(thread: int) -> bool:
    """Return whether a thread, or the main thread of a process, waits in read(2) of a FUSE file."""
    with suppress(FileNotFoundError, ProcessLookupError):
        where = Path(f"/proc/{thread}/wchan").read_text()
        call = Path(f"/proc/{thread}/syscall").read_text().split()
        return where == "request_wait_answer" and call[0] == (_READ or call[0])
    return False


def polls(thread: int) -> bool:
    """Return whether a thread waits in poll(2), select(2) or epoll_wait(2)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "poll" in Path(f"/proc/{thread}/wchan").read_text()
    return False


def until_it_waits(thread: int) -> None:
    """Wait until a thread waits for a frame in read(2)."""
    until(lambda: waits_in_read(thread), f"thread {thread} waits in read")
