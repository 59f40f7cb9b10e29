"""rx: a symbolic link to the FIFO of an interface."""

from collections.abc import Callable

from virtfs.core.virt import Virt
from virtfs.files.frame import Seats
from virtfs.files.node import Symlink


class Rx(Symlink):
    """The symbolic link `rx`. followed: called when a program follows the link, because it may then open the FIFO.

    While a program has the tap, following the link fails with EBUSY. This is TapReturning if the program has ended.
    """

    __slots__ = ("_followed", "_seats", "_virt")

    def __init__(self, virt: Virt, target: str, seats: Seats, followed: Callable[[], None]) -> None:
        super().__init__(virt, target)
        self._virt = virt
        self._seats = seats
        self._followed = followed

    def follow(self) -> str:
        self._seats.expect_no_holder(f"{self._virt.name}/rx")
        self._followed()
        return self.target
