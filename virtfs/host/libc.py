"""The C library, for system calls that Python lacks on one of the supported versions.

os.setns and os.CLONE_NEWNET came with Python 3.12 and os.timerfd_create with 3.13, while virtfs supports 3.11. ctypes
works on all of them, so there is one code path, which the tests cover on every version. mount(2), prctl(2),
process_vm_readv(2) and io_uring(7) are not in os at all.
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """Return the result of a C function. OSError, with its errno: the result is negative."""
    if result < 0:
        raise last_error()
    return result


def last_error() -> OSError:
    """Return the OSError for the errno of this thread's last failed C function."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
