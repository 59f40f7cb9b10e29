"""Mount and detach a FUSE file system. Mounting yields a descriptor of /dev/fuse.

fusermount3 does the mounting. It is usually setuid root, so that ordinary users can mount. Root can also use it without
the setuid bit. fusermount3 passes the descriptor of /dev/fuse over the socket whose number is in _FUSE_COMMFD; see
libfuse's lib/mount.c and util/fusermount.c.
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
from functools import partial

import trio

from virtfs.core.errors import VirtError
from virtfs.forward.supervisor import supervised
from virtfs.forward.tasks import in_thread
from virtfs.fuse.hanging import unless_stopped
from virtfs.fuse.mounttable import TABLE, Mounted, mounted_at, still_mounted

log = logging.getLogger(__name__)

OPTIONS = ("subtype=virtfs", "default_permissions")
PATIENCE = 20.0  # seconds to wait for fusermount3, which normally takes milliseconds

_DEAD = 2  # exit status of a child process that finds a dead mount
_MS_REMOUNT = 32  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)

_CONTAINER = "a container needs --device /dev/fuse and --cap-add SYS_ADMIN"


def attach(directory: str, source: str = "virtfs", flags: Sequence[str] = ()) -> int:
    """Mount at a directory and return the /dev/fuse descriptor, which the caller closes.

    The descriptor is close-on-exec and non-blocking. directory: an absolute path without symbolic links. source: the
    mount's source in /proc/self/mountinfo. flags: more options for fusermount3, such as "ro".

    When this function returns, the kernel has sent FUSE_INIT, and blocks all other requests until FUSE_INIT is
    answered. A mount by root is open to all users (allow_other). Any other mount is open only to its owner, unless
    `flags` contains "allow_other". If killed servers have left dead mounts at the directory, these are detached first.

    VirtError: ENOENT, there is no such directory; ENOTDIR, it is not a directory; EBUSY, something is mounted there;
    ENODEV, there is no /dev/fuse; ENOSYS, there is no fusermount3; EMFILE, this process has no free descriptor;
    EACCES, EPERM or EIO, with the message of fusermount3.
    """
    _clear(directory)
    _check_device()
    # Escape commas and backslashes. fusermount3 removes the escapes (util/fusermount.c do_mount()).
    name = re.sub(r"([\\,])", r"\\\1", source)
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
                # A process group of its own keeps Ctrl-C from killing fusermount3 halfway. The server itself
                # handles Ctrl-C: it unmounts.
                process_group=0,
            )
        with helper:
            # If fusermount3 fails, its exit closes the other end, and recv_fds() returns without a descriptor.
            _, descriptors, received, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
            said = helper.communicate()[1]
    # MSG_CTRUNC means that this process has no free descriptor (unix(7)).
    if helper.returncode == 0 and not descriptors and received & socket.MSG_CTRUNC:
        detach_lazily(directory)
        raise VirtError(errno.EMFILE, f'cannot mount at "{directory}": {os.strerror(errno.EMFILE)}')
    if helper.returncode == 0 and descriptors:
        os.set_blocking(descriptors[0], False)
        return descriptors[0]
    for descriptor in descriptors:
        os.close(descriptor)
    raise _refusal(directory, said)


def change_flags(directory: str, flags: int) -> None:
    """Remount with the given flags of mount(2). They replace the current flags.

    A FUSE remount accepts no other options (fs/fuse/inode.c fuse_parse_param).

    VirtError: EPERM, the caller is not root.
    """
    if _libc.mount(b"none", os.fsencode(directory), None, ctypes.c_ulong(_MS_REMOUNT | flags), None) != 0:
        number = ctypes.get_errno()
        raise VirtError(number, f'cannot remount "{directory}": {os.strerror(number)}')


def detach_lazily(directory: str) -> None:
    """Detach the mount at a directory, as `umount -l` does. Open files keep working until they are closed.

    This works even if the server no longer answers. It blocks for up to PATIENCE seconds while fusermount3 runs, so
    call it in a thread. VirtError EIO: fusermount3 failed or timed out.
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
        sentence = f'cannot unmount "{directory}": fusermount3 did not finish within {PATIENCE:.0f} s'
        raise VirtError(errno.EIO, sentence) from None
    if done.returncode:
        reason = _last_line(done.stderr)
        if os.strerror(errno.EINVAL) in reason and mounted_at(directory):  # MNT_LOCKED, fs/namespace.c can_umount()
            reason += ": it was mounted outside of this user namespace, before `virtfs shell` began: unmount it there"
        raise VirtError(errno.EIO, f'cannot unmount "{directory}": {reason}')


def detach_own(mount: Mounted) -> None:
    """Detach a mount that this process serves.

    Do nothing if the mount is gone. Log a warning if it was moved or if another mount covers it.
    """
    if not still_mounted(mount):
        return
    top = mounted_at(mount.directory)
    if top is None or top.id != mount.id:
        log.warning('"%s" was moved or is covered by another mount; unmount it by hand', mount.directory)
        return
    detach_lazily(mount.directory)


async def wait_unmounted(mount: Mounted) -> None:
    """Return when the mount has left the mount table, even if `umount -l` left files open.

    FUSE itself notifies the server only when the last of these files is closed. Cancellation leaves nothing behind.

    A thread calls poll(2), because trio cannot wait for POLLPRI. epoll(7) would not be reliable: the table reports
    POLLPRI|POLLERR only once per change (proc(5)), and epoll polls it twice (fs/eventpoll.c ep_modify(), then
    ep_send_events()). If the first poll takes the event, the second finds nothing, and the change is lost.
    """
    cancelled = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        async with supervised() as tasks:
            tasks.start(partial(_set_when_cancelled, cancelled), name="ending the wait for an unmount")
            # This thread lives as long as the mount, so it must not hold one of the 40 tokens of trio's default
            # limiter.
            await in_thread(_poll_table, mount, cancelled, limiter=trio.CapacityLimiter(1))
            tasks.cancel()
    finally:
        os.close(cancelled)


async def _set_when_cancelled(eventfd: int) -> None:
    try:
        await trio.sleep_forever()
    finally:
        os.eventfd_write(eventfd, 1)


def _poll_table(mount: Mounted, cancelled: int) -> None:
    """Block until the mount has left the table or the eventfd `cancelled` is written to."""
    # Open the table before the first check, so that poll(2) reports any change after that check.
    with open(TABLE, "rb", buffering=0) as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI | select.POLLERR)
        poll.register(cancelled, select.POLLIN)
        while still_mounted(mount, table) and not any(fd == cancelled for fd, _ in poll.poll()):
            pass


def _clear(directory: str) -> None:
    """Detach dead virtfs mounts at a directory, and check that a mount is possible there.

    VirtError: EBUSY, another mount is there; ENOENT, there is no such directory; ENOTDIR, it is not a directory.
    """
    while mount := mounted_at(directory):
        if not (mount.virtfs and _dead(directory)):
            what = "virtfs" if mount.virtfs else f"{mount.source} ({mount.type})"
            raise VirtError(errno.EBUSY, f'"{directory}" is busy: {what} is already mounted there')
        log.warning('"%s" still has a mount whose virtfs server died; unmounting it', directory)
        detach_lazily(directory)
    try:
        mode = os.stat(directory).st_mode
    except OSError as e:
        raise VirtError(e.errno or errno.EIO, f'"{directory}": {os.strerror(e.errno or errno.EIO)}') from None
    if not stat.S_ISDIR(mode):
        raise VirtError(errno.ENOTDIR, f'"{directory}" is not a directory')


def _dead(directory: str) -> bool:
    """Return whether the server of a FUSE mount has died. VirtError: as in unless_stopped()."""

    def look() -> int:
        try:
            os.stat(directory)
        except OSError as e:
            return _DEAD if e.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 0
        return 0

    return unless_stopped(directory, look, partial(log.warning, "%s")) == _DEAD


def _check_device() -> None:
    try:
        mode = os.stat("/dev/fuse").st_mode
    except OSError:
        raise VirtError(errno.ENODEV, f"there is no /dev/fuse: as root, run `modprobe fuse`; {_CONTAINER}") from None
    if not stat.S_ISCHR(mode):
        raise VirtError(errno.ENODEV, "/dev/fuse is not a character device: remove it, then run `modprobe fuse`")


def _fusermount() -> str:
    # Append directories to PATH, because mount(8) and systemd start programs with a short PATH or none.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/bin:/usr/bin:/bin"
    if found := shutil.which("fusermount3", path=path):
        return found
    raise VirtError(errno.ENOSYS, "there is no fusermount3: install it (Debian, Ubuntu: apt install fuse3)")


def _last_line(said: bytes) -> str:
    """Return the last line that fusermount3 printed, without the program name at its beginning."""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub("^[^ ]*fusermount3: ", "", lines[-1]) if lines else "fusermount3 gave no reason"


def _refusal(directory: str, said: bytes) -> VirtError:
    reason = _last_line(said)
    sentence = f'cannot mount at "{directory}": {reason}'
    if "device not found" in reason:
        return VirtError(errno.ENODEV, f"/dev/fuse has no driver: as root, run `modprobe fuse`; {_CONTAINER}")
    if "/dev/fuse: Permission denied" in reason:
        return VirtError(errno.EACCES, f"{sentence}: as root, run `chmod 0666 /dev/fuse`")
    if "no write access" in reason:
        return VirtError(errno.EACCES, f"{sentence}: run virtfs as root, or use `virtfs shell`")
    if "not permitted" in reason:
        return VirtError(errno.EPERM, f"{sentence}; {_CONTAINER}")
    return VirtError(errno.EIO, sentence)
