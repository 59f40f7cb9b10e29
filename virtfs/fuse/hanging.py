"""System calls that block while the server of a mount does not answer, for example because it got SIGSTOP.

Only SIGKILL ends such a call. So a child process makes the call, and the caller kills the child to give up.
"""

import errno
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from virtfs.core.errors import VirtError

STOPPED = 3.0  # seconds without an answer after which a server is probably stopped
REMEDY = "continue it with kill -CONT, or end it with kill -KILL"


class Child:
    """A forked process that calls a function. Leaving the `with` block kills it.

    call: the function, which returns the exit status. status: the exit status once ended() has returned True.
    """

    def __init__(self, call: Callable[[], int]) -> None:
        self.status: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                for number in (signal.SIGINT, signal.SIGTERM):
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        signal.signal(number, signal.SIG_DFL)
                status = call()
            finally:
                os._exit(status)
        self._pidfd = os.pidfd_open(self._pid)

    def __enter__(self) -> "Child":
        return self

    def ended(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end of the process, and return whether it has ended."""
        if self.status is None and select.select([self._pidfd], [], [], seconds)[0]:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self.status is not None

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            # If the server was stopped after it had read the request, the child dies only when the server ends.
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._pidfd)


def unless_stopped(directory: str, call: Callable[[], int]) -> int:
    """Make a system call on a mount in a child process, and return the result of `call`, 0 to 255.

    VirtError EBUSY: the server does not answer within STOPPED seconds.
    """
    with Child(call) as child:
        if child.ended(STOPPED) and child.status is not None:
            return child.status
    why = may_be_stopped() or "does not answer: end it with virtfs umount"
    raise VirtError(errno.EBUSY, f'"{directory}" is busy: the server of the virtfs there {why}')


def may_be_stopped() -> str:
    """Return what a server that does not answer may be and the remedy, after "its server", or "" if none is stopped."""
    stopped = stopped_servers()
    return stopped and f"may be stopped ({stopped}): {REMEDY}"


def stopped_servers() -> str:
    """Return the stopped processes that have /dev/fuse open, as "pid 1, pid 2", or "" if none is found.

    The kernel does not report which process serves a mount. Only root can inspect the processes of other users.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if state == b"T" and any(os.readlink(fd) == "/dev/fuse" for fd in (entry / "fd").iterdir()):
                    found.append(f"pid {entry.name}")
    return ", ".join(found)
