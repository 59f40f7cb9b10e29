"""An open directory."""

from virtfs.core.ids import User
from virtfs.core.memory import NAME, Kind, Memory
from virtfs.files.node import Directory, Node


class Listing:
    """An open directory: the names that it had when it was opened.

    It stores names and not nodes, so that a removed interface can be freed. Names removed since the open are skipped.
    sent: the version of the interface (Virt.version) when attributes of its files were last sent with the names, or -1.
    memory: the memory accounts of the mount. The names are charged to the user.
    VirtError ENOBUFS: the names would exceed a limit on memory.
    """

    __slots__ = ("_hold", "directory", "names", "sent", "user")

    def __init__(self, directory: Directory, user: User, memory: Memory) -> None:
        self.directory = directory
        self.user = user
        self.sent = -1
        self.names = (".", "..", *directory.children)
        self._hold = memory.hold(Kind.CONTENTS, user.uid)
        self._hold.resize(NAME * len(self.names))

    def node(self, name: str) -> Node | None:
        """Return the node of a name, or None if it has been removed."""
        return self.directory if name in (".", "..") else self.directory.children.get(name)

    def release(self) -> None:
        """Clean up after the last descriptor is closed."""
        self._hold.release()
