"""The Internet for `virtfs shell --net`, through passt(1).

    tap255 ══ virt255 ── cable ── Unix socket ── passt, outside the namespaces ── sockets of the caller

Process 1 of the shell creates the interface and connects to the cable's socket, which is in its private /run. It sends
the connection to `virtfs shell`, which starts passt on it (`passt --fd`). passt exits when the connection
closes, that is, when the server ends for any reason. So no process and no file outlives the shell, even after SIGKILL.
"""

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host.mount_call import bind

UNIT = Unit(255)  # the highest number, so that the lower ones are free
ADDRESS, GATEWAY, RESOLVER = "10.0.2.15", "10.0.2.2", "10.0.2.3"  # as in slirp4netns and QEMU's user network
_SOCKET = "/run/virtfs-net.socket"
_RESOLV_CONF = "/run/virtfs-resolv.conf"
_LONGEST = 4096  # maximum length of an error message in bytes


def check_passt() -> None:
    """Check that passt is installed. VirtError ENOENT: it is not."""
    if shutil.which("passt") is None:
        raise VirtError(errno.ENOENT, "--net needs passt(1), which is not installed: install the package passt")


def start_passt(channel: socket.socket) -> None:
    """Receive a connection from join(), start passt on it, and reply with an error message, which is empty on success.

    Return without a reply if the process at the other end of `channel` has ended.
    """
    with channel, contextlib.suppress(ConnectionError):
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if descriptors:
            channel.sendall(_passt(descriptors[0]).encode()[:_LONGEST])


def _passt(connection: int) -> str:
    """Start passt, and close `connection` in this process. Return "" once passt is ready, or an error message.

    When passt is ready, it forks a process that runs in the background, and the process started here exits.
    """
    options = ["--quiet", "--stderr", "--ipv4-only", "--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none"]
    addresses = ["--address", ADDRESS, "--netmask", "24", "--gateway", GATEWAY, "--dns-forward", RESOLVER]
    # A file, not a pipe: passt keeps standard error open, so reading a pipe to end of file would not return.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            status = subprocess.call(
                ["passt", *options, *addresses, "--fd", str(connection)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[connection],
                start_new_session=True,
            )
        except OSError as e:
            return f"passt: {e.strerror}"
        finally:
            os.close(connection)
        if not status:
            return ""
        said.seek(0)
        lines = [line.strip() for line in said if line.strip() and "syslog" not in line]
    return f"passt: {lines[-1] if lines else f'exit status {status}'}"


def join(channel: socket.socket, directory: str) -> None:
    """Connect the namespaces to the Internet: an interface with an address, a route, and a resolver.

    directory: the mount point of the virtfs. channel: the socket whose other end start_passt() reads.
    VirtError, OSError, CalledProcessError: a step failed.
    """
    Path(directory, "ctl").write_text(
        f"create {UNIT} up inet {ADDRESS}/24 description Internet\ncable {UNIT} unix-listen:{_SOCKET}\n",
        encoding="utf-8",
    )
    with channel, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_SOCKET)
        socket.send_fds(channel, [b"\n"], [connection.fileno()])
        connection.close()
        channel.shutdown(socket.SHUT_WR)
        if said := channel.recv(_LONGEST):
            raise VirtError(errno.ENETUNREACH, said.decode(errors="replace"))
    route = ["ip", "route", "add", "default", "via", GATEWAY, "dev", f"tap{UNIT}"]
    subprocess.run(route, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    Path(_RESOLV_CONF).write_text(f"nameserver {RESOLVER}\n", encoding="utf-8")
    Path(_RESOLV_CONF).chmod(0o644)
    bind(_RESOLV_CONF, os.path.realpath("/etc/resolv.conf"))
