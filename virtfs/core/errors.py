"""The one error that crosses the borders of virtfs: an errno for the program, a sentence for the person."""

import errno


class VirtError(OSError):
    """A refusal.

    errno: what write(2), open(2) or read(2) fails with. strerror: one line of plain English that quotes the
    offending text; it is what `last_error` shows.
    """

    errno: int
    strerror: str

    def __init__(self, errno: int, sentence: str) -> None:
        super().__init__(errno, sentence)


def refused(failure: OSError | MemoryError) -> VirtError:
    """A failure as what a user is told."""
    if isinstance(failure, VirtError):
        return failure
    if isinstance(failure, MemoryError):
        return VirtError(errno.ENOMEM, "out of memory")
    return VirtError(failure.errno or errno.EIO, failure.strerror or str(failure))
