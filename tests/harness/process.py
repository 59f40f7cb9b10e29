"""A program that makes system calls for a test and returns their results.

Each call runs in its own thread of that program, so that one can wait in a read while another writes.
"""

import errno
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any, Generic, TypeVar, cast

from harness import programs
from harness.forks import FIRST
from harness.places import DIR, Place
from harness.waiting import PATIENCE, Stuck, until_it_waits

T = TypeVar("T")


class Refusal:
    """The context that fails() returns."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        name = errno.errorcode[self._number]
        assert kind is not None, f"succeeded, expected {name}"
        if isinstance(error, OSError):
            assert error.errno == self._number, f"{error}, expected {name}"
            return True
        return False


def fails(number: int) -> Refusal:
    """Return a context whose body must fail with an OSError of that errno."""
    return Refusal(number)


class Pending(Generic[T]):
    """A call that has started."""

    def __init__(self, process: "Process", number: int, thread: int, what: str) -> None:
        self._process = process
        self._number = number
        self.thread = thread
        self._what = what

    def waiting(self) -> "Pending[T]":
        """Wait until the call waits for a frame, and return itself."""
        until_it_waits(self.thread)
        return self

    def result(self, seconds: float = PATIENCE) -> T:
        """Return the result of the call, or raise its OSError."""
        kind, answer = self._process.hear(self._number, ("ends", "fails"), seconds, self._what)
        if kind == "fails":
            raise answer
        return cast(T, answer)


class Process:
    """A program that makes calls (harness/agent.py), run as root or as another user."""

    def __init__(self, place: Place, uid: int = 0) -> None:
        ours, theirs = Pipe()
        self._link = ours
        self._heard: dict[tuple[str, int], Any] = {}
        self._calls = 0
        with theirs:
            self._popen = place.fork("agent", str(FIRST), str(uid), files=[theirs.fileno()])
        self.pid = self._popen.pid

    def begin(self, function: Callable[..., T], *arguments: object) -> Pending[T]:
        """Start a call."""
        self._calls += 1
        self._link.send((self._calls, function, arguments))
        what = f"{getattr(function, '__name__', function)}{arguments!r:.200}"
        _, thread = self.hear(self._calls, ("begins",), PATIENCE, what)
        return Pending(self, self._calls, cast(int, thread), what)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Make a call and return its result."""
        return self.begin(function, *arguments).result()

    def open(self, path: str, flags: int = os.O_RDWR) -> "File":
        """open(2) of a path below the mount point."""
        return File(self, path, self.call(os.open, f"{DIR}/{path}", flags))

    def hear(self, number: int, kinds: tuple[str, ...], seconds: float, what: str) -> tuple[str, Any]:
        """Return the kind and content of the program's next message about a call."""
        end = time.monotonic() + seconds
        while True:
            for kind in kinds:
                if (kind, number) in self._heard:
                    return kind, self._heard.pop((kind, number))
            if not self._link.poll(max(0.0, end - time.monotonic())):
                raise Stuck(f"no answer within {seconds:g} s: {what}")
            kind, of, answer = self._link.recv()
            self._heard[kind, of] = answer

    def let_go(self) -> bool:
        """Close the program's files. Returns False if a call has not returned."""
        return self.call(programs.let_go, FIRST)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL. Stuck: the program has not ended."""
        self.signal(signal.SIGKILL)
        try:
            self._popen.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Stuck("a killed program has not ended") from None

    def close(self) -> None:
        """End the program by closing its socket."""
        self._link.close()
        self._popen.wait(timeout=PATIENCE)


class File:
    """A descriptor in the program of a Process."""

    def __init__(self, process: Process, path: str, fd: int) -> None:
        self.process = process
        self.path = path
        self.fd = fd

    def read(self, size: int = 65536) -> bytes:
        """read(2)"""
        return self.begin_read(size).result()

    def begin_read(self, size: int = 65536) -> Pending[bytes]:
        """A read(2) that may wait."""
        return self.process.begin(os.read, self.fd, size)

    def write(self, data: bytes | str) -> int:
        """write(2)"""
        return self.process.call(os.write, self.fd, data.encode() if isinstance(data, str) else data)

    def poll(self, events: int = select.POLLIN | select.POLLOUT, seconds: float = 0) -> int:
        """poll(2). Returns the events, or 0 if there is none within `seconds`."""
        return self.begin_poll(events, seconds).result(seconds + PATIENCE)

    def begin_poll(self, events: int, seconds: float = PATIENCE) -> Pending[int]:
        """A poll(2) that may wait."""
        return self.process.begin(programs.poll, self.fd, events, seconds)

    def ioctl(self, request: int, argument: bytes) -> bytes:
        """ioctl(2) with a structure."""
        return self.process.call(programs.ioctl, self.fd, request, argument)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Any other call that takes a descriptor first."""
        return self.process.call(function, self.fd, *arguments)

    def set_blocking(self, blocking: bool) -> None:
        """Set or clear O_NONBLOCK with fcntl(2)."""
        self.call(os.set_blocking, blocking)

    def close(self) -> None:
        """close(2)"""
        self.call(os.close)
