"""The slow plane: names, attributes and text files, as pyfuse3 operations.

This is the only module that imports pyfuse3. An operation may wait for rtnetlink, but never for a user program. The
kernel caches no entries or attributes, so the next lookup of a destroyed interface fails.
"""

import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import pyfuse3

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import NAME, Hold, Kind
from virtfs.files.node import Directory, Node, Symlink
from virtfs.files.text import Text
from virtfs.forward.tasks import in_thread
from virtfs.fuse.inodes_handles import HandleId, Handles, Inodes
from virtfs.fuse.interrupts import Interrupts

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Grow = Callable[[int, int, bytes], None]  # Answers.grow()
Report = Callable[[VirtError, User], None]  # sets a user's last_error


class Keeper(Protocol):
    """The operations of the daemon that the slow plane needs."""

    async def catch_up(self) -> None:
        """Apply pending kernel notifications, so that answers are up to date."""

    async def set_mode(self, node: Node, mode: int, user: User) -> None:
        """Apply chmod(2). mode: the new permission bits (mask 0o7777). OSError EPERM: the node's mode cannot be set."""

    async def set_owner(self, node: Node, owner: Uid | None, group: Gid | None, user: User) -> None:
        """Apply chown(2). owner, group: the new ids; None keeps the present one.

        OSError EPERM: the node's owner cannot be set, or this user may not set it.
        """


def answered(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate an operation so that its exceptions are answered with an errno.

    An OSError is answered with its own errno, and a MemoryError with ENOMEM. Any other exception is logged and answered
    with EIO.
    """

    @functools.wraps(operation)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await operation(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        except MemoryError:
            raise pyfuse3.FUSEError(errno.ENOMEM) from None
        except Exception:
            log.exception("%s failed", operation.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guarded


class Listing:
    """An open directory: the names that it had when it was opened.

    It stores names and not nodes, so that a removed interface can be freed. readdir() skips names removed since then.
    """

    def __init__(self, directory: Directory, user: User, hold: Hold) -> None:
        self.directory = directory
        self.user = user
        self.names = (".", "..", *directory.children)
        self.hold = hold
        hold.resize(NAME * len(self.names))

    def node(self, name: str) -> Node | None:
        """Return the node of a name, or None if it has been removed."""
        return self.directory if name in (".", "..") else self.directory.children.get(name)


def user_of(ctx: pyfuse3.RequestContext) -> User:
    """Return the user and process that sent a request."""
    return User(Uid(ctx.uid), Gid(ctx.gid), ctx.pid)


class Names(pyfuse3.Operations):
    """pyfuse3's operations on the tree.

    keeper: carries out changes.
    grow: Answers.grow(). If a text has grown since its lookup, it is called in a thread before the open is answered.
    report: called with the error and the user if an open or a read exceeds a limit.
    interrupts: cancels changes whose callers get a signal.
    """

    def __init__(
        self,
        root: Directory,
        inodes: Inodes,
        handles: Handles,
        keeper: Keeper,
        grow: Grow,
        report: Report,
        interrupts: Interrupts,
    ) -> None:
        super().__init__()
        self._interrupts = interrupts
        self._grow = grow
        self._report = report
        self._root = root
        self._inodes = inodes
        self._handles = handles
        self._keeper = keeper
        self._listings: dict[int, Listing] = {}
        self._next_listing = 1

    # Names

    def _node(self, inode: int) -> Node:
        node = self._inodes.node(inode)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENXIO)
        return node

    def _directory(self, inode: int) -> Directory:
        node = self._node(inode)
        if not isinstance(node, Directory):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    def _attributes(self, node: Node, user: User | None = None) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self._inodes.number(node))
        entry.entry_timeout = entry.attr_timeout = 0
        entry.st_mode = pyfuse3.ModeT(node.kind | node.permissions())
        entry.st_uid, entry.st_gid = node.owner.owner, node.owner.group
        entry.st_size = node.size(user)
        # If st_blocks were too small for st_size, cp and tar would treat the file as sparse.
        entry.st_blocks = -(-entry.st_size // 512)
        entry.st_atime_ns, entry.st_mtime_ns = node.times()
        entry.st_ctime_ns = node.born
        entry.st_nlink = 1
        if isinstance(node, Directory):
            entry.st_nlink = 2 + sum(isinstance(child, Directory) for child in node.children.values())
        return entry

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        await self._keeper.catch_up()
        node = self._directory(parent_inode).children.get(to_text(name))
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(node)

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        await self._keeper.catch_up()
        return self._attributes(self._node(inode), user_of(ctx))

    @answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Apply chmod(2) and chown(2), as the verbs mode, owner and group do. Ignore other changes, as sysfs does."""
        node = self._node(inode)
        user = user_of(ctx)
        with self._interrupts.cancellable(ctx.pid) as scope:
            if fields.update_mode:
                await self._keeper.set_mode(node, attr.st_mode & 0o7777, user)
            if fields.update_uid or fields.update_gid:
                owner = Uid(attr.st_uid) if fields.update_uid else None
                group = Gid(attr.st_gid) if fields.update_gid else None
                await self._keeper.set_owner(node, owner, group, user)
        if scope.cancelled_caught:
            raise pyfuse3.FUSEError(errno.EINTR)
        return self._attributes(node)

    @answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self._node(inode)
        if not isinstance(node, Symlink):
            raise pyfuse3.FUSEError(errno.EINVAL)
        return os.fsencode(node.target)

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        user = user_of(ctx)
        with self._opening(user):
            hold = self._handles.memory.hold(Kind.CONTENTS, user.uid)
            listing = Listing(self._directory(inode), user, hold)
        self._next_listing += 1
        self._listings[self._next_listing] = listing
        return self._next_listing

    @contextmanager
    def _opening(self, user: User) -> Iterator[None]:
        """Count an open at its start, and uncount it if it fails. Report a VirtError to the user."""
        with self._reporting(user):
            self._handles.begin(user)
            try:
                yield
            except BaseException:
                self._handles.closed(user)
                raise

    @contextmanager
    def _reporting(self, user: User) -> Iterator[None]:
        try:
            yield
        except VirtError as refusal:
            self._report(refusal, user)
            raise

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for next_id, name in enumerate(listing.names[start_id:], start=start_id + 1):
            if (node := listing.node(name)) is None:
                continue
            entry = self._attributes(node)
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(to_bytes(name)), entry, next_id):
                break

    @answered
    async def releasedir(self, fh: int) -> None:
        listing = self._listings.pop(fh)
        listing.hold.release()
        self._handles.closed(listing.user)

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Report a file system of 0 blocks, so that df(1) omits it, like proc and sysfs."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    # Text files. The channel answers the writes, and all requests on open device files.

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if not isinstance(node, Text):
            raise pyfuse3.FUSEError(errno.EISDIR)
        user = user_of(ctx)
        with self._opening(user):
            if flags & os.O_ACCMODE != os.O_WRONLY:
                await self._keeper.catch_up()
                size = await node.opened(user)
                if size > node.reported and not node.personal:
                    await in_thread(self._grow, inode, size, node.measured[-1:])
                    node.reported = size
            fh = self._handles.add_text(node.open(user, self._handles.memory))
        # With direct I/O, one read(2) or write(2) is one request.
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(fh), direct_io=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        await self._keeper.catch_up()
        handle = self._handles.texts[HandleId(fh)]
        with self._reporting(handle.user):
            return await handle.read(off, size)

    @answered
    async def release(self, fh: int) -> None:
        self._handles.remove_text(HandleId(fh)).release()

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Do nothing, because a written value is in effect when write(2) returns."""

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Do nothing: no directory has unwritten changes."""


async def _denied(*args: Any) -> Any:
    raise pyfuse3.FUSEError(errno.EPERM)


# Deny these operations, because only the command `create` makes interfaces, and only `destroy` removes them.
# The methods for extended attributes keep pyfuse3's default, which answers ENOSYS. After the first ENOSYS the kernel no
# longer requests security.capability before each write.
for _operation in ("mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create"):
    setattr(Names, _operation, _denied)


def serve_on(
    root: Directory,
    inodes: Inodes,
    handles: Handles,
    keeper: Keeper,
    grow: Grow,
    report: Report,
    interrupts: Interrupts,
    descriptor: int,
) -> None:
    """Create the libfuse session. The other parameters are those of Names.

    descriptor: libfuse's end of the socket pair. libfuse uses it in place of /dev/fuse. The function close() closes it.
    """
    names = Names(root, inodes, handles, keeper, grow, report, interrupts)
    pyfuse3.init(names, f"/dev/fd/{descriptor}", {"fsname=virtfs"})


async def run(workers: int) -> None:
    """Answer requests until end() is called, with at most `workers` concurrent tasks."""
    await pyfuse3.main(max_tasks=workers)


def end() -> None:
    """Make run() return once the requests in progress are answered."""
    pyfuse3.terminate()


def close() -> None:
    """Free the libfuse session and close its descriptor, without unmounting."""
    pyfuse3.close(unmount=False)
