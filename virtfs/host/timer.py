"""A timer that makes a descriptor readable, accurate to a few microseconds (timerfd_create(2)).

trio.sleep() is too coarse for the delay of a frame, because trio sleeps in epoll_wait(2), whose time-out is in ms.
"""

import ctypes
import errno
import os
import time

from virtfs.core.errors import VirtError
from virtfs.host.descriptors import keep_spare
from virtfs.host.libc import check, libc

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1

_LAST = (1 << 63) - 1  # ns, the maximum of ktime_t (include/linux/ktime.h)


_timerfd_create, _timerfd_settime = libc.timerfd_create, libc.timerfd_settime


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """A descriptor that becomes readable at a set time. Times are values of time.monotonic_ns()."""

    def __init__(self) -> None:
        """Create the timer, with no time set. VirtError: EMFILE, ENFILE, ENOMEM."""
        self.fd = -1
        try:
            self.fd = check(_timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
            keep_spare(self.fd)
        except OSError as refusal:
            self.close()
            raise VirtError(refusal.errno or errno.EIO, f"cannot create a timer: {refusal.strerror}") from refusal

    def set(self, due: int) -> None:
        """Set the time at which the descriptor becomes readable.

        due: the time in ns. If it is in the past, the descriptor becomes readable at once; 0 stops the timer. A time
        beyond the maximum of the kernel's clock is clamped to that maximum, because ctypes would truncate it.
        """
        value = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(min(due, _LAST), 1_000_000_000)))
        check(_timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None))

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
