"""The rival in plain pyfuse3: one file "frame" for one tap, written as pyfuse3's documentation recommends.

Run as root: python plain_pyfuse3.py IFNAME DIR. IFNAME is an existing persistent tap.
"""

import errno
import os
import stat
import sys

import pyfuse3
import trio
from arena import attach

FRAME = pyfuse3.InodeT(2)


class Frame(pyfuse3.Operations):
    """A file system with one file. Each read waits in its own worker task; a write is passed directly to the tap."""

    def __init__(self, tap: int) -> None:
        super().__init__()
        self.tap = tap

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600 if inode == FRAME else stat.S_IFDIR | 0o755)
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != b"frame":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(FRAME)

    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True, nonseekable=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        while True:
            try:
                return os.read(self.tap, size)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.tap)

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        return os.write(self.tap, buf)


def main(ifname: str, directory: str) -> None:
    pyfuse3.init(Frame(attach(ifname)), directory, set(pyfuse3.default_options))
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
