"""The C library, through ctypes, for system calls that some of the supported Python versions do not offer.

virtfs supports Python 3.11. os.setns and os.CLONE_NEWNET are new in Python 3.12, and os.timerfd_create in 3.13. ctypes
works on all versions, so there is one code path, which the tests cover on every version. The module os has no functions
for mount(2), prctl(2), process_vm_readv(2) and io_uring(7).
"""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """Return the result of a C function. If it is negative, raise OSError with the errno that the function set."""
    if result < 0:
        raise last_error()
    return result


def last_error() -> OSError:
    """Return an OSError with the errno of the last C function that failed in this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
