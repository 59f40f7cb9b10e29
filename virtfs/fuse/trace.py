"""The log of all FUSE requests and answers, for `-o debug`.

A Trace has the two methods of FileIO that the channel calls on /dev/fuse, and replaces the FileIO in a mount with
`-o debug`. So the channel need not check whether requests are logged, and other mounts bear no cost.
"""

import errno
import logging
import struct
from io import FileIO
from time import monotonic_ns
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from virtfs.files.node import Directory, Node
from virtfs.fuse import protocol as p
from virtfs.fuse.inodes_handles import Inodes

log = logging.getLogger(__name__)

# enum fuse_opcode, linux/fuse.h, from 0
_NAMES = """
? LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK ? MKNOD MKDIR UNLINK RMDIR RENAME LINK OPEN READ WRITE STATFS RELEASE
? FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT OPENDIR READDIR RELEASEDIR FSYNCDIR GETLK SETLK SETLKW
ACCESS CREATE INTERRUPT BMAP DESTROY IOCTL POLL NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK
COPY_FILE_RANGE SETUPMAPPING REMOVEMAPPING SYNCFS TMPFILE STATX
"""
_OPCODES = dict(enumerate(_NAMES.split()))
_NOTIFICATIONS = {
    p.FUSE_NOTIFY_POLL: "NOTIFY_POLL",
    p.FUSE_NOTIFY_INVAL_INODE: "NOTIFY_INVAL_INODE",
    p.FUSE_NOTIFY_STORE: "NOTIFY_STORE",
}
_WITHOUT_ANSWER = {"FORGET", "BATCH_FORGET", "INTERRUPT"}
_WITH_SIZE = {"READ", "WRITE", "READDIR", "READDIRPLUS"}
_WITH_FH = _WITH_SIZE | {"RELEASE", "FLUSH", "FSYNC", "IOCTL", "POLL", "FALLOCATE", "LSEEK", "RELEASEDIR"}
_HEAD = 512  # only this many bytes of a request are decoded
_MOST = 100_000  # maximum number of unanswered requests; at the next one, the trace forgets them all


class Device(Protocol):
    """The methods of FileIO that the channel uses on /dev/fuse."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None: ...

    def write(self, message: bytes | memoryview, /) -> int | None: ...


class _Request(NamedTuple):
    what: str
    opcode: str
    began: int  # time in ns


class Trace:
    """A wrapper around /dev/fuse that logs each message. inodes: the inode numbers of the nodes in the tree."""

    def __init__(self, device: FileIO, inodes: Inodes) -> None:
        self._device = device
        self._inodes = inodes
        self._paths: WeakKeyDictionary[Node, str] = WeakKeyDictionary()
        self._requests: dict[int, _Request] = {}

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Read a request, and log it."""
        length = self._device.readinto(buffer)
        if length is not None and length >= p.BODY:
            self._request(bytes(memoryview(buffer)[: min(length, _HEAD)]))
        return length

    def write(self, message: bytes | memoryview, /) -> int | None:
        """Log an answer or a notification, and write it."""
        _, error, unique = p.fuse_out_header.unpack_from(message)
        if unique == 0:
            log.debug("%s, %d bytes", _NOTIFICATIONS.get(error, f"notification {error}"), len(message))
        else:
            what, opcode, began = self._requests.pop(unique, _Request(f"{unique} ?", "", monotonic_ns()))
            took = (monotonic_ns() - began) / 1e6
            log.debug("%s: %s after %.3f ms", what, _result(opcode, error, message), took)
        return self._device.write(message)

    def _request(self, message: bytes) -> None:
        _, number, unique, inode, uid, gid, pid, _, _ = p.fuse_in_header.unpack_from(message)
        opcode = _OPCODES.get(number, f"opcode {number}")
        what = f"{unique} {opcode} {self._path(inode)}"
        if opcode not in _WITHOUT_ANSWER:
            if len(self._requests) >= _MOST:
                self._requests.clear()
            self._requests[unique] = _Request(what, opcode, monotonic_ns())
        log.debug("%s%s, user %d, group %d, thread %d", what, _arguments(opcode, message), uid, gid, pid)

    def _path(self, inode: int) -> str:
        """Return the path of a node below the mount point, or "-" if the request has no node (inode 0)."""
        if not inode:
            return "-"
        node = self._inodes.node(inode)
        if node is None:
            return f"(no file {inode})"
        if node not in self._paths:
            self._learn(self._inodes.node(p.FUSE_ROOT_ID), "")
        return self._paths.get(node, f"(removed file {inode})")

    def _learn(self, node: Node | None, path: str) -> None:
        if node is not None:
            self._paths[node] = path or "/"
        if isinstance(node, Directory):
            for name, child in node.children.items():
                self._learn(child, f"{path}/{name}")


def _arguments(opcode: str, message: bytes) -> str:
    """Return the arguments of a request as text, or " (too short)" if the request is too short for its opcode."""
    try:
        if opcode == "LOOKUP":
            return f' "{message[p.BODY :].rstrip(bytes(1)).decode(errors="surrogateescape")}"'
        if opcode == "INTERRUPT":
            return f" of {p.fuse_interrupt_in.unpack_from(message, p.BODY)[0]}"
        if opcode == "OPEN":
            return f" flags {p.fuse_open_in.unpack_from(message, p.BODY)[0]:#o}"
        text = f" fh {p.fuse_fh.unpack_from(message, p.BODY)[0]}" if opcode in _WITH_FH else ""
        if opcode in _WITH_SIZE:
            _, offset, size, _, _, _, _ = p.fuse_read_in.unpack_from(message, p.BODY)
            text += f" offset {offset} size {size}"
        elif opcode == "IOCTL":
            text += f" command {p.fuse_ioctl_in.unpack_from(message, p.BODY)[2]:#x}"
        elif opcode == "POLL":
            text += f" events {p.fuse_poll_in.unpack_from(message, p.BODY)[3]:#x}"
    except struct.error:
        return " (too short)"
    return text


def _result(opcode: str, error: int, message: bytes | memoryview) -> str:
    """Return the result of a request as text: an errno, or what the opcode returns."""
    if error:
        return errno.errorcode.get(-error, str(error))
    size = len(message) - p.REPLY
    if opcode == "WRITE" and size >= p.fuse_write_out.size:
        return f"{p.fuse_write_out.unpack_from(message, p.REPLY)[0]} bytes"
    if opcode in ("OPEN", "OPENDIR") and size >= p.fuse_open_out.size:
        return f"fh {p.fuse_open_out.unpack_from(message, p.REPLY)[0]}"
    if opcode == "POLL" and size >= p.fuse_poll_out.size:
        return f"events {p.fuse_poll_out.unpack_from(message, p.REPLY)[0]:#x}"
    return f"{size} bytes" if opcode in _WITH_SIZE else "done"


def device_of(fuse: int, inodes: Inodes) -> Device:
    """Return an object to read and write /dev/fuse. It logs each message if the log level is DEBUG."""
    # FileIO.readinto() returns None where os.read() would raise EAGAIN.
    device = FileIO(fuse, "r+b", closefd=False)
    return Trace(device, inodes) if log.isEnabledFor(logging.DEBUG) else device
