"""One request that the channel's loop does not answer inline."""

import errno
import struct
from typing import Any, NamedTuple

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.device import Unique
from virtfs.fuse import protocol as p
from virtfs.fuse.inodes_handles import HandleId
from virtfs.host.processes import process_of


class Request(NamedTuple):
    """The fields of a fuse_in_header, and the whole message.

    inode: nodeid. thread: pid, which is the id of the calling thread, or 0 if the server cannot see the thread.
    message: valid until the function that gets the request returns or awaits.
    """

    opcode: int
    unique: Unique
    inode: int
    uid: Uid
    gid: Gid
    thread: int
    message: memoryview

    @classmethod
    def parse(cls, message: memoryview) -> "Request":
        """Return the request in a message of at least p.BODY bytes."""
        _, opcode, unique, inode, uid, gid, thread, _, _ = p.fuse_in_header.unpack_from(message)
        return cls(opcode, unique, inode, uid, gid, thread, message)

    @property
    def user(self) -> User:
        """The user who made the request. Its `pid` is the id of the calling thread."""
        return User(self.uid, self.gid, self.thread)

    @property
    def user_and_process(self) -> User:
        """The user who made the request. Its `pid` is the process id, looked up in /proc."""
        return User(self.uid, self.gid, process_of(self.thread))

    @property
    def fh(self) -> HandleId:
        """The handle number at the beginning of the body. VirtError EINVAL: the body is too short."""
        return HandleId(self.body(p.fuse_fh)[0])

    def body(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the fields at the beginning of the body. VirtError EINVAL: the body is shorter than `layout`."""
        if len(self.message) < p.BODY + layout.size:
            raise VirtError(errno.EINVAL, "the request is too short for its opcode")
        return layout.unpack_from(self.message, p.BODY)
