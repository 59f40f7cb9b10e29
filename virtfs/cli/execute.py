"""`virtfs exec`: run a program with the tap of an interface as a file descriptor.

This process connects to the socket behind `fd`, gets the descriptor, and executes the program, which inherits the
connection. The connection closes when the program and all of its children have ended, however they end. Then the server
takes the tap back.
"""

import errno
import fcntl
import json
import os
import re
import resource
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtfs.cli.surroundings import complain, sentence_of
from virtfs.cli.unstarted import refusal as refused
from virtfs.client.device_nodes import TUN, check_devices
from virtfs.client.native import connect
from virtfs.core.errors import VirtError
from virtfs.fuse.mounttable import mounts

# The connection gets the lowest free descriptor number that is at least this. Few programs use numbers this high.
_CONNECTION = 100
_ANSWER = 4096  # maximum length of an answer in bytes
_TUN_NUMBER = os.makedev(10, 200)  # that of /dev/net/tun: MISC_MAJOR and TUN_MINOR of the kernel
_PATIENCE = 30  # seconds to wait for the server's answer
# Python sets these signals to be ignored. Without a reset, the executed program would ignore them too.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


def execute(interface: str, command: list[str], *, number: int, header: bool, tun: bool) -> int:
    """Replace this process with a command that inherits the tap of an interface.

    number: the tap's descriptor number in the command, whose environment then has the interface's directory, as
    VIRTFS_FD3 for 3. header: whether a virtio_net_hdr precedes each frame. tun:
    whether the command itself attaches to the tap, and so gets no descriptor.
    Return only if the command cannot be run: 127 if there is no such program, 126 if it cannot be executed.
    VirtError: there is no such interface, the server refuses the request, the number is not possible, or this user may
    not open /dev/net/tun.
    """
    _check_device() if tun else _check(number)
    directory = find(interface)
    if not tun:
        # The program finds the MAC address and the mtu there. Each descriptor has its own variable, because
        # `virtfs exec 3 -- virtfs exec 4 --fd 4 -- CMD` gives CMD several.
        os.environ[f"VIRTFS_FD{number}"] = os.path.abspath(directory)
    connection, tap = borrow(directory, {"lend": True} if tun else {} if header else {"vnet_hdr": 0})
    _arrange(connection, tap, number)
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as refusal:
        sentence, status = refused(command[0], refusal)
        complain("virtfs", f"exec: {sentence}")
        return status


def find(interface: str) -> Path:
    """Return the directory of an interface. interface: its path, number or name.

    A number or a name is looked up in $VIRTFS, then in the mount that contains the working directory, then in all
    mounts. VirtError: EINVAL, several mounts have the interface, or `interface` is malformed; ENXIO, there is no such
    interface.
    """
    if "/" in interface or interface in (".", ".."):
        return _checked(Path(interface))
    if not re.fullmatch(r"(virt)?(0|[1-9][0-9]*)", interface):
        raise VirtError(errno.EINVAL, f'exec: "{interface}" is not a number, virtN or a path')
    name = f"virt{interface.removeprefix('virt')}"
    all_mounts = sorted({mount.directory for mount in mounts() if mount.virtfs})
    here = os.getcwd()
    near = [os.environ.get("VIRTFS", ""), *(top for top in all_mounts if f"{here}/".startswith(f"{top}/"))]
    for directory in near:
        if directory and Path(directory, name).is_dir():
            return _checked(Path(directory, name))
    having = [directory for directory in all_mounts if os.path.isdir(f"{directory}/{name}")]  # not that of a dead mount
    if len(having) > 1:
        paths = " or ".join(f"{directory}/{name}" for directory in having)
        raise VirtError(errno.EINVAL, f"exec: several mounts have {name}: give a path, {paths}")
    if not all_mounts:
        from virtfs.cli.mounts import no_mount

        raise VirtError(errno.ENXIO, f"exec: {no_mount()}")
    if not having:
        for directory in all_mounts:
            _check_alive(directory)
        raise VirtError(errno.ENXIO, f"exec: no virtfs mount has {name}")
    return _checked(Path(having[0], name))


def _check_alive(path: str | Path) -> None:
    """Raise VirtError ENOTCONN with the remedy if a path is in a mount whose server was killed."""
    try:
        os.stat(path)
    except OSError as e:
        if e.errno == errno.ENOTCONN:
            raise VirtError(errno.ENOTCONN, f"exec: {sentence_of(e)}") from None


def _checked(directory: Path) -> Path:
    _check_alive(directory)
    if not os.path.lexists(directory / "fd"):
        raise VirtError(errno.ENXIO, f'exec: "{directory}" is not the directory of an interface')
    return directory


def borrow(directory: Path, request: dict[str, Any]) -> tuple[socket.socket, int]:
    """Request the tap of an interface. Return the connection and the tap's descriptor, or -1 if the server sent none.

    VirtError: the server refuses the request or does not answer.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_PATIENCE)
    try:
        connect(connection, directory / "fd")
        connection.send(json.dumps(request).encode())
        data, descriptors, _, _ = socket.recv_fds(connection, _ANSWER, 1)
    except OSError as refusal:
        reason = refusal.strerror or str(refusal)
        raise VirtError(refusal.errno or errno.EIO, f"exec: {directory}/fd: {reason}") from refusal
    connection.settimeout(None)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # in Python 3.11, recv_fds() ignores the flag MSG_CMSG_CLOEXEC
    answer: dict[str, Any] = (
        json.loads(data) if data else {"errno": errno.EIO, "error": f"{directory}/fd: the server closed the connection"}
    )
    if "errno" in answer:
        raise VirtError(answer["errno"], f"exec: {answer['error']}")
    return connection, descriptors[0] if descriptors else -1


def _lowest(number: int) -> int:
    """Return the lowest descriptor number for the connection if the tap has `number`."""
    return max(_CONNECTION, number + 1)


def _check_device() -> None:
    """Check that this user may open /dev/net/tun, because many programs do not say which file they cannot open."""
    try:
        check_devices(TUN)
    except VirtError as refusal:
        raise VirtError(refusal.errno, f"exec: {refusal.strerror}") from refusal


def _is_tap(number: int) -> bool:
    """Return whether a descriptor is a tap that an outer `virtfs exec` has given to this process."""
    if f"VIRTFS_FD{number}" not in os.environ:
        return False
    with suppress(OSError):  # it is closed
        return os.fstat(number).st_rdev == _TUN_NUMBER
    return False


def _check(number: int) -> None:
    """Raise VirtError EINVAL if the tap and the connection cannot get their descriptor numbers."""
    if number >= 0 and _is_tap(number):
        held = os.path.basename(os.environ[f"VIRTFS_FD{number}"])
        reason = f"descriptor {number} is already the tap of {held}: give another number, as in --fd {number + 1}"
        raise VirtError(errno.EINVAL, f"exec: {reason}")
    if number < 0:
        raise VirtError(errno.EINVAL, f"exec: --fd {number}: a descriptor number cannot be negative")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if (lowest := _lowest(number)) >= limit:
        reason = f"descriptor numbers up to {lowest} are needed, but the limit is {limit} (ulimit -n)"
        raise VirtError(errno.EINVAL, f"exec: --fd {number}: {reason}")


def _arrange(connection: socket.socket, tap: int, number: int) -> None:
    """Move the tap to descriptor `number`, and make the tap and the connection inheritable.

    VirtError: EMFILE, too many descriptors are open.
    """
    try:
        os.set_inheritable(fcntl.fcntl(connection.detach(), fcntl.F_DUPFD, _lowest(number)), True)
        if tap == number:
            os.set_inheritable(tap, True)
        elif tap >= 0:
            os.dup2(tap, number)
    except OSError as refusal:
        reason = f"exec: cannot move the tap to descriptor {number}: {refusal.strerror}"
        raise VirtError(refusal.errno or errno.EIO, reason) from refusal
