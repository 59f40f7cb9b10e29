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
from time import monotonic

from virtfs.core.errors import VirtError

ENDING = 60.0  # seconds to wait for the end of a killed process; the kernel needs about 15 for 1000 taps
SLOW = 1.5  # seconds without an answer after which a user should know why
STOPPED = 3.0  # seconds without an answer after which a server is probably stopped
_PF_EXITING = 4  # linux/sched.h
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


def unless_stopped(directory: str, call: Callable[[], int], tell: Callable[[str], None]) -> int:
    """Make a system call on a mount in a child process, and return the result of `call`, 0 to 255.

    If a process is ending, wait for it: the kernel still removes the taps of a killed server, and answers no call on
    its mount before. tell: called with the sentence of waiting() after SLOW seconds.

    VirtError EBUSY: the server does not answer within STOPPED seconds, or ENDING for such a process.
    """
    with Child(call) as child:
        last = monotonic() + ENDING
        answered = child.ended(SLOW)
        if not answered and (why := waiting()):
            tell(why)
        answered = answered or child.ended(STOPPED - SLOW)
        stopped = "" if answered else may_be_stopped()
        while not (answered or stopped) and monotonic() < last and ending_processes():
            answered = child.ended(0.2)
        # The last process may have ended just now.
        if (answered or child.ended(0.2)) and child.status is not None:
            return child.status
    ending = ending_processes()
    why = stopped or (
        f"may still be ending ({ending}): try again later" if ending else "does not answer: end it with virtfs umount"
    )
    raise VirtError(errno.EBUSY, f'"{directory}" is busy: the server of the virtfs there {why}')


def waiting() -> str:
    """Return what a command waits for if a process is ending, as a sentence, or "" if there is none."""
    ending = ending_processes()
    return ending and f"waiting for the server that was killed ({ending}), whose taps the kernel still removes"


def may_be_stopped() -> str:
    """Return what a server that does not answer may be and the remedy, after "its server", or "" if none is stopped."""
    stopped = stopped_servers()
    return stopped and f"may be stopped ({stopped}): {REMEDY}"


def ending_processes() -> str:
    """Return the processes that are ending but have not ended yet, as "pid 1, pid 2", or "" if there is none.

    Which files such a process has, and its command line, cannot be seen any more: the kernel takes them from the
    process before it closes the files (kernel/exit.c do_exit). Source: proc_pid_stat(5).
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                state, flags, threads = fields[0], int(fields[6]), int(fields[17])
                if flags & _PF_EXITING and (state not in b"ZX" or threads > 1):
                    found.append(f"pid {entry.name}")
    return ", ".join(found)


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
