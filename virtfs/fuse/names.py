"""The slow plane: the requests that virtfs leaves to libfuse, as pyfuse3 operations.

This is the only module that imports pyfuse3. An operation may wait for rtnetlink, but never for a user program.
`answerers` lists the requests that virtfs answers without libfuse.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

import pyfuse3

from virtfs.core.errors import forget_frames
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.node import Node
from virtfs.fuse.attributes import SECOND, Attributes
from virtfs.fuse.inodes_handles import Inodes
from virtfs.fuse.interrupts import Interrupts

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Keeper(Protocol):
    """The operations of the daemon that the slow plane needs."""

    async def set_mode(self, node: Node, mode: int, user: User) -> None:
        """Apply chmod(2). mode: the new permission bits (mask 0o7777). OSError EPERM: the node's mode cannot be set."""

    async def set_owner(self, node: Node, owner: Uid | None, group: Gid | None, user: User) -> None:
        """Apply chown(2). owner, group: the new ids; None keeps the current one.

        OSError EPERM: the node's owner cannot be set, or this user may not set it.
        """

    def deny(self, operation: str, user: User) -> None:
        """Record that a user tried to make, rename or remove a name. operation: the system call."""


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
            forget_frames(error)
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        except MemoryError:
            raise pyfuse3.FUSEError(errno.ENOMEM) from None
        except Exception:
            log.exception("%s failed", operation.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guarded


def user_of(ctx: pyfuse3.RequestContext) -> User:
    """Return the user and process that sent a request."""
    return User(Uid(ctx.uid), Gid(ctx.gid), ctx.pid)


class Names(pyfuse3.Operations):
    """pyfuse3's operations on the tree.

    keeper: carries out changes.
    interrupts: cancels a change if its caller gets a signal.
    """

    def __init__(self, inodes: Inodes, attributes: Attributes, keeper: Keeper, interrupts: Interrupts) -> None:
        super().__init__()
        self._inodes = inodes
        self._keeper = keeper
        self._interrupts = interrupts
        self._shown = attributes

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.entry_timeout = entry.attr_timeout = 0
        (
            inode,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            atimensec,
            mtimensec,
            ctimensec,
            mode,
            links,
            uid,
            gid,
            _,
            block,
            _,
        ) = self._shown.of(node)
        entry.st_ino, entry.st_size, entry.st_blocks = pyfuse3.InodeT(inode), size, blocks
        entry.st_atime_ns = atime * SECOND + atimensec
        entry.st_mtime_ns = mtime * SECOND + mtimensec
        entry.st_ctime_ns = ctime * SECOND + ctimensec
        entry.st_mode, entry.st_nlink = pyfuse3.ModeT(mode), links
        entry.st_uid, entry.st_gid, entry.st_blksize = uid, gid, block
        return entry

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
        if self._shown.removed.walked_to(inode, ctx.pid):
            raise pyfuse3.FUSEError(errno.ESTALE)  # the kernel sends no GETATTR before it
        node = self._inodes.node(inode)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENXIO)
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
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Report a file system of 0 blocks, so that df(1) omits it, like proc and sysfs."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Do nothing, because a written value is in effect when write(2) returns."""

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Do nothing: no directory has unwritten changes."""


def _denying(operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def denied(self: Names, *args: Any) -> Any:
        self._keeper.deny(operation, user_of(args[-1]))
        raise pyfuse3.FUSEError(errno.EPERM)

    return denied


# Deny these operations, because only the command `create` makes interfaces, and only `destroy` removes them.
# The methods for extended attributes keep pyfuse3's default, which answers ENOSYS. After the first ENOSYS the kernel no
# longer requests security.capability before each write.
for _operation in ("mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create"):
    setattr(Names, _operation, _denying(_operation))


def serve_on(inodes: Inodes, attributes: Attributes, keeper: Keeper, interrupts: Interrupts, descriptor: int) -> None:
    """Create the libfuse session. The parameters other than `descriptor` are those of Names.

    descriptor: libfuse's end of the socket pair. libfuse uses it in place of /dev/fuse. The function close() closes it.
    """
    names = Names(inodes, attributes, keeper, interrupts)
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
