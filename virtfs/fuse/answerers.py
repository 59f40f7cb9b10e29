"""The table that assigns each kind of request to the function that answers it.

The loop in `channel` answers READ and WRITE of device files, INTERRUPT, FORGET and BATCH_FORGET.
The table below names the function for every other request that virtfs answers without libfuse.
libfuse answers all requests that are not in the table, with the operations in `names`: INIT, SETATTR, STATFS, FSYNC,
FSYNCDIR, and extended attributes. It refuses requests that would create or remove a name, and unknown opcodes.

The functions return whether another request is likely to follow immediately. If so, the loop does not sleep.
"""

import errno
from collections.abc import Callable
from typing import NamedTuple

from virtfs.core.errors import VirtError
from virtfs.files.device import DeviceFile
from virtfs.files.text import Text
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.devices import Devices
from virtfs.fuse.directories import Directories
from virtfs.fuse.inodes_handles import HandleId, Handles
from virtfs.fuse.later import Later
from virtfs.fuse.lookups import Lookups
from virtfs.fuse.request import Request
from virtfs.fuse.texts import Texts

Answer = Callable[[Request], bool]


class OnFile(NamedTuple):
    """The functions that answer one opcode, by the kind of the open file. None stands for libfuse."""

    device: Answer
    history: Answer
    text: Answer | None


class Answerers:
    """The table of answering functions, as two dictionaries keyed by opcode.

    by_name: requests about a name, an inode, or an open directory. by_file: requests about an open file.
    """

    def __init__(
        self,
        answers: Answers,
        handles: Handles,
        devices: Devices,
        texts: Texts,
        lookups: Lookups,
        directories: Directories,
        later: Later,
    ) -> None:
        self._handles = handles
        self._devices = devices
        self._texts = texts
        self._lookups = lookups
        self._write: Answer = later.write

        def refused(error: int) -> Answer:
            def refuse(request: Request) -> bool:
                answers.fail(request.unique, error)
                return True

            return refuse

        invalid, unsupported = refused(errno.EINVAL), refused(errno.EOPNOTSUPP)
        self.by_name: dict[int, Answer] = {
            p.FUSE_LOOKUP: lookups.lookup,
            p.FUSE_GETATTR: lookups.getattr,
            p.FUSE_READLINK: lookups.readlink,
            p.FUSE_OPEN: self._open,
            p.FUSE_OPENDIR: directories.opendir,
            p.FUSE_READDIR: directories.readdir,
            p.FUSE_READDIRPLUS: directories.readdirplus,
            p.FUSE_RELEASEDIR: directories.releasedir,
        }
        # libfuse would answer ENOSYS to POLL, FLUSH and COPY_FILE_RANGE. After that the kernel would no longer send the
        # opcode for any file of the connection. So virtfs answers these opcodes for every kind of file.
        self.by_file: dict[int, OnFile] = {
            p.FUSE_READ: OnFile(devices.read_fixed, devices.read_fixed, texts.read),
            p.FUSE_WRITE: OnFile(invalid, invalid, self._write),
            p.FUSE_RELEASE: OnFile(devices.release, devices.release, texts.release),
            p.FUSE_FLUSH: OnFile(devices.flush, devices.flush, devices.flush),
            p.FUSE_FSYNC: OnFile(devices.fsync, invalid, None),
            p.FUSE_IOCTL: OnFile(devices.ioctl, devices.ioctl, None),
            p.FUSE_POLL: OnFile(devices.poll, devices.poll, devices.poll),
            p.FUSE_FALLOCATE: OnFile(unsupported, unsupported, None),
            p.FUSE_LSEEK: OnFile(devices.seek, devices.seek, None),
            # After EOPNOTSUPP or EXDEV the kernel itself would copy, by splicing. After EINVAL, cat and cp fall back to
            # read(2) and write(2).
            p.FUSE_COPY_FILE_RANGE: OnFile(invalid, invalid, invalid),
        }

    def find(self, opcode: int, fh: HandleId) -> Answer | None:
        """Return the function that answers a request, or None if libfuse answers it.

        fh: the number at the beginning of the body. It is a handle only if the request is about an open file.
        """
        if (answer := self.by_name.get(opcode)) is not None:
            return answer
        if (on_file := self.by_file.get(opcode)) is None:
            return None
        if fh in self._handles.devices:
            return on_file.device
        return on_file.history if fh in self._handles.fixed else on_file.text

    def slow(self, opcode: int, inode: int, fh: HandleId) -> bool:
        """Return whether a request is left to libfuse or a task, instead of being answered at once.

        inode: nodeid of the request. fh: as for find().
        """
        if opcode == p.FUSE_OPEN:
            node = self._lookups.find(inode)
            return isinstance(node, Text) and node.waits
        if opcode == p.FUSE_READ and (text := self._handles.texts.get(fh)) is not None:
            return text.node.waits
        return self.find(opcode, fh) in (None, self._write)

    def _open(self, request: Request) -> bool:
        node = self._lookups.node(request.inode)
        if isinstance(node, DeviceFile):
            return self._devices.open(node, request)
        if isinstance(node, Text):
            return self._texts.open(node, request)
        raise VirtError(errno.EISDIR, "only a file can be opened for reading or writing")
