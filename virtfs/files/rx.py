"""rx: a symbolic link to the FIFO of an interface."""

from collections.abc import Callable

from virtfs.files.node import Owner, Symlink


class Rx(Symlink):
    """The link. followed: called when a program follows it, since the program may then open the FIFO."""

    __slots__ = ("_followed",)

    def __init__(self, owner: Owner, target: str, followed: Callable[[], None]) -> None:
        super().__init__(owner, target)
        self._followed = followed

    def follow(self) -> str:
        self._followed()
        return self.target
