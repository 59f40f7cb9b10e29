"""A timer one can wait for among descriptors, exact to some microseconds (timerfd_create(2)).

epoll_wait(2), which trio sleeps in, counts in milliseconds: too coarse for a frame's delay. Python's own timerfd came
with 3.13.
"""

import ctypes
import errno
import os
import time

from virtfs.core.errors import VirtError
from virtfs.host.descriptors import keep_spare

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1

_LAST = (1 << 63) - 1  # ns: a ktime_t, include/linux/ktime.h

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """Readable once the time set has come. Times are time.monotonic_ns()."""

    def __init__(self) -> None:
        """VirtError: EMFILE, ENFILE, ENOMEM."""
        self.fd = -1
        try:
            self.fd = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
            keep_spare(self.fd)
        except OSError as refusal:
            self.close()
            raise VirtError(refusal.errno or errno.EIO, f"no timer: {refusal.strerror}") from refusal

    def set(self, due: int) -> None:
        """Become readable at `due`, in ns, at once if that is past; 0 is never.

        A time that the clock cannot reach is the last that it can: of a larger number ctypes keeps the lowest bits.
        """
        value = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(min(due, _LAST), 1_000_000_000)))
        _checked(_libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None))

    def close(self) -> None:
        """Give the descriptor back. A second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
