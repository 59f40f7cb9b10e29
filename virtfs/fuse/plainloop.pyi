from collections.abc import Callable, Mapping

from virtfs.files.device import DeviceHandle, Unique
from virtfs.fuse.inodes_handles import HandleId

class PlainLoop:
    def __init__(
        self,
        fuse: int,
        room: bytearray,
        reply: bytearray,
        devices: Mapping[HandleId, DeviceHandle],
        fail: Callable[[Unique, int], None],
        large: int,
        long: int,
        rest: int,
        due: Callable[[], bool],
        each: int,
    ) -> None: ...
    def answer(self, uid: int, looks: int, again: int, left: int, turn: int) -> tuple[int | None, int, int]: ...
    @property
    def contended(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def spent(self) -> int: ...
    @property
    def ended(self) -> int: ...
    @property
    def empty(self) -> int: ...
