"""Getting a /dev/fuse descriptor that is mounted somewhere, and getting rid of the mount again.

fusermount3 does the mounting: setuid where an ordinary user may mount, and nothing but a program where root
does. How it hands the descriptor over: libfuse's lib/mount.c and util/fusermount.c.
"""

import ctypes
import errno
import logging
import os
import re
import select
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.tasks import in_thread
from virtfs.fuse.mounttable import TABLE, Mounted, mounted_at, still_there

log = logging.getLogger(__name__)

OPTIONS = ("subtype=virtfs", "default_permissions")
PATIENCE = 20.0  # seconds for fusermount3, which needs milliseconds

_MS_REMOUNT = 32  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)

_CONTAINER = "in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"


def attach(directory: str, source: str = "virtfs", flags: Sequence[str] = ()) -> int:
    """Mount at a resolved directory; returns /dev/fuse: the caller's to close, close-on-exec, not blocking.

    source: what the table of mounts names it. flags: more options for fusermount3, such as "ro".

    The kernel has then sent FUSE_INIT and lets nobody in before it is answered. Root's mount is everybody's
    (allow_other), an ordinary user's is his alone. A dead mount of an earlier run is cleaned away first.
    VirtError: ENOENT, ENOTDIR the directory; EBUSY something is mounted there; ENODEV no /dev/fuse; ENOSYS no
    fusermount3; EACCES, EPERM, EIO what fusermount3 said.
    """
    _clear(directory)
    _check_device()
    name = re.sub(r"([\\,])", r"\\\1", source)  # as fusermount3 wants it, util/fusermount.c do_mount()
    options = [f"fsname={name}", *OPTIONS, *flags]
    if os.geteuid() == 0 and "allow_other" not in flags:
        options.append("allow_other")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            helper = subprocess.Popen(
                [_fusermount(), "-o", ",".join(options), "--", directory],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,  # a Ctrl-C is for us: we undo what it did
            )
        with helper:
            # Its end is closed when it exits, so this ends without a descriptor if it fails.
            _, descriptors, received, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
            said = helper.communicate()[1]
    if helper.returncode == 0 and not descriptors and received & socket.MSG_CTRUNC:  # unix(7): it could not be had
        detach_lazily(directory)
        raise VirtError(errno.EMFILE, f'cannot mount at "{directory}": {os.strerror(errno.EMFILE)}')
    if helper.returncode == 0 and descriptors:
        os.set_blocking(descriptors[0], False)
        return descriptors[0]
    for descriptor in descriptors:
        os.close(descriptor)
    raise _refusal(directory, said)


def change_flags(directory: str, flags: int) -> None:
    """Remount with these flags of mount(2); those that are not among them are cleared. VirtError: EPERM not root.

    FUSE takes no other option then (fs/fuse/inode.c fuse_parse_param).
    """
    if _libc.mount(b"none", os.fsencode(directory), None, ctypes.c_ulong(_MS_REMOUNT | flags), None) != 0:
        number = ctypes.get_errno()
        raise VirtError(number, f'cannot remount "{directory}": {os.strerror(number)}')


def detach_lazily(directory: str) -> None:
    """Take the mount at a directory out of the table at once; files that are open stay until they are closed.

    Needs no answer from the server. VirtError EIO: what fusermount3 said. It waits for that program: from a
    trio task it belongs in a thread.
    """
    try:
        done = subprocess.run(
            [_fusermount(), "-u", "-z", "--", directory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise VirtError(errno.EIO, f'fusermount3 hangs while unmounting "{directory}"') from None
    if done.returncode:
        raise VirtError(errno.EIO, f'cannot unmount "{directory}": {_last_line(done.stderr)}')


def let_go(mount: Mounted) -> None:
    """detach_lazily for the mount's own server: if it is still there, and is what lies on top."""
    if not still_there(mount):
        return
    top = mounted_at(mount.directory)
    if top is None or top.id != mount.id:
        log.warning('"%s" was moved or is covered by another mount: unmount it by hand', mount.directory)
        return
    detach_lazily(mount.directory)


async def wait_unmounted(mount: Mounted) -> None:
    """Return when the mount has left the table, as after `umount -l` while files are open.

    FUSE itself tells its server nothing before the last of them is closed. Cancellation leaves nothing
    behind.

    poll(2) on the table says POLLPRI|POLLERR once for each change (proc(5)), and this "once" is why a thread
    waits here: trio does not wait for POLLPRI, and an epoll descriptor in between can lose a change, since
    the kernel asks the table twice on the way (ep_modify(), then ep_send_events(), fs/eventpoll.c): the
    second time it says nothing.
    """
    enough = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_when_cancelled, enough)
            # A limiter of its own: this thread lives as long as the mount, trio's 40 are for short work.
            await in_thread(_poll_table, mount, enough, limiter=trio.CapacityLimiter(1))
            nursery.cancel_scope.cancel()
    finally:
        os.close(enough)


async def _set_when_cancelled(eventfd: int) -> None:
    try:
        await trio.sleep_forever()
    finally:
        os.eventfd_write(eventfd, 1)


def _poll_table(mount: Mounted, enough: int) -> None:
    """In a thread: until the mount is gone or `enough` is written to."""
    with open(TABLE, "rb", buffering=0) as table:  # opened before the first look: what changes after it wakes poll
        poll = select.poll()
        poll.register(table, select.POLLPRI | select.POLLERR)
        poll.register(enough, select.POLLIN)
        while still_there(mount, table) and not any(fd == enough for fd, _ in poll.poll()):
            pass


def _clear(directory: str) -> None:
    """See that something can be mounted here; mounts that earlier servers left behind are taken away."""
    while mount := mounted_at(directory):
        if not (mount.virtfs and _dead(directory)):
            what = "virtfs" if mount.virtfs else f"{mount.source} ({mount.type})"
            raise VirtError(errno.EBUSY, f'"{directory}" is busy: {what} is mounted there already')
        log.warning('"%s" has the mount of a virtfs that died: unmounting it', directory)
        detach_lazily(directory)
    try:
        mode = os.stat(directory).st_mode
    except OSError as e:
        raise VirtError(e.errno or errno.EIO, f'"{directory}": {os.strerror(e.errno or errno.EIO)}') from None
    if not stat.S_ISDIR(mode):
        raise VirtError(errno.ENOTDIR, f'"{directory}" is not a directory')


def _dead(directory: str) -> bool:
    """Whether nobody serves a FUSE mount any more."""
    try:
        os.stat(directory)
    except OSError as e:
        return e.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _check_device() -> None:
    try:
        mode = os.stat("/dev/fuse").st_mode
    except OSError:
        raise VirtError(
            errno.ENODEV, f"there is no /dev/fuse: load the module with `modprobe fuse`; {_CONTAINER}"
        ) from None
    if not stat.S_ISCHR(mode):
        raise VirtError(errno.ENODEV, "/dev/fuse is not a device: remove it, then `modprobe fuse`")


def _fusermount() -> str:
    # mount(8) and systemd call with a short PATH or none.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/bin:/usr/bin:/bin"
    if found := shutil.which("fusermount3", path=path):
        return found
    raise VirtError(errno.ENOSYS, "there is no fusermount3: install it (Debian, Ubuntu: apt install fuse3)")


def _last_line(said: bytes) -> str:
    """The reason in what fusermount3 printed, without its name."""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub("^[^ ]*fusermount3: ", "", lines[-1]) if lines else "fusermount3 gave no reason"


def _refusal(directory: str, said: bytes) -> VirtError:
    reason = _last_line(said)
    sentence = f'cannot mount at "{directory}": {reason}'
    if "device not found" in reason:
        return VirtError(errno.ENODEV, f"/dev/fuse has no driver: `modprobe fuse`; {_CONTAINER}")
    if "/dev/fuse: Permission denied" in reason:
        return VirtError(errno.EACCES, f"{sentence}: as root, `chmod 0666 /dev/fuse`")
    if "not permitted" in reason:
        return VirtError(errno.EPERM, f"{sentence}; {_CONTAINER}")
    return VirtError(errno.EIO, sentence)
