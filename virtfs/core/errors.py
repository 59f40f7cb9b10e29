"""The one error that crosses the borders of virtfs: an errno for the program, a sentence for the person."""


class VirtError(OSError):
    """A refusal.

    errno: what write(2), open(2) or read(2) fails with. strerror: one line of plain English that quotes the
    offending text; it is what `last_error` shows.
    """

    errno: int
    strerror: str

    def __init__(self, errno: int, sentence: str) -> None:
        super().__init__(errno, sentence)
