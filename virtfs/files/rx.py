"""rx: a symbolic link to the FIFO of an interface."""

from collections.abc import Callable

from virtfs.core.virt import Virt
from virtfs.files.frame import Seats
from virtfs.files.node import Symlink


class Rx(Symlink):
    """The symbolic link `rx`. followed: called when a program follows the link, because it may then open the FIFO.

    While a program has the tap, following the link fails with EBUSY.
    """

    __slots__ = ("_followed", "_name", "_seats")

    def __init__(self, virt: Virt, target: str, seats: Seats, followed: Callable[[], None]) -> None:
        super().__init__(virt, target)
        self._name = virt.name
        self._seats = seats
        self._followed = followed

    def follow(self) -> str:
        self._seats.expect_no_holder(self._name)
        self._followed()
        return self.target
