"""The only error type of virtfs: an errno for the program and a message for the user."""

import errno

from virtfs.core.quoting import one_line


class VirtError(OSError):
    """An error that a user sees.

    errno: the errno that the user's system call (write(2), open(2), read(2) and so on) fails with.
    strerror: one line of plain English that quotes the offending text. The file `last_error` shows this line. It may
    quote names from outside, so the constructor escapes unprintable characters.
    """

    errno: int
    strerror: str

    def __init__(self, errno: int, sentence: str) -> None:
        super().__init__(errno, one_line(sentence))


def forget_frames(failure: BaseException | None) -> None:
    """Let go of the frames that an error has passed. Call this once the error is answered.

    A frame may refer to the error, in a local variable. Only the garbage collector would free the two, with everything
    else in the frames: the user's data, interfaces that have been destroyed.
    """
    while failure is not None and failure.__traceback__ is not None:
        failure.__traceback__ = None
        failure = failure.__cause__ or failure.__context__


def refused(failure: OSError | MemoryError) -> VirtError:
    """Convert a failure to a VirtError. A VirtError is returned unchanged."""
    if isinstance(failure, VirtError):
        return failure
    if isinstance(failure, MemoryError):
        return VirtError(errno.ENOMEM, "out of memory")
    return VirtError(failure.errno or errno.EIO, failure.strerror or str(failure))


def located(error: VirtError, where: str) -> VirtError:
    """Return the error of a frame with its place in the written data added, such as "line 2".

    where: the place, or "" if it is clear. ENXIO is about the interface, not about a frame, and stays as it is.
    """
    return VirtError(error.errno, f"{where}: {error.strerror}") if where and error.errno != errno.ENXIO else error
