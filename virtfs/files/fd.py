"""fd: a symbolic link to the socket through which a program gets the tap itself (daemon.loans)."""

from collections.abc import Callable

from virtfs.core.ids import User
from virtfs.core.loan import Meter
from virtfs.files.device import DeviceFile, DeviceHandle, Opens, Waiters
from virtfs.files.frame import Holder
from virtfs.files.node import Owner, Symlink


class FdLink(Symlink):
    """The symbolic link `fd`. listen: creates the socket if it does not exist, or raises OSError."""

    __slots__ = ("_listen",)

    def __init__(self, owner: Owner, target: str, listen: Callable[[], None]) -> None:
        super().__init__(owner, target)
        self._listen = listen

    def follow(self) -> str:
        self._listen()
        return self.target


class Held(DeviceHandle):
    """The handle that represents a borrower of the tap in `clients` and `events`. No FUSE request uses this handle."""

    __slots__ = ("_holder", "meter")

    def __init__(self, owner: Owner, opens: Opens, user: User, meter: Meter, holder: Holder) -> None:
        super().__init__(DeviceFile(owner, "fd", opens), user, Waiters())
        self.meter = meter
        self._holder = holder

    def process(self) -> int:
        return self._holder.pid

    def taken(self) -> int:
        return self.meter.taken
