"""`virtfs shell`: a shell in namespaces of its own with virtfs mounted. No root needed.

    virtfs shell ── unshare(1) ── inside.py, process 1 of the new pid namespace ─┬─ the server
                                                                                └─ $SHELL or the command

An ordinary user becomes root of a user namespace whose other users come from usermap.py; root, who needs none, keeps
his rights and gets the other namespaces (mount, network, pid) alone. Everybody but the server shares the
terminal's process group: Ctrl-C ends the command, while unshare(1) and the two of ours sit it out; Ctrl-Z and fg stop
and continue all of them together.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import virtfs
from virtfs.cli.signals import unless_ignored
from virtfs.cli.usermap import map_users
from virtfs.core.errors import VirtError

# Run with -P, so that no module is taken from the working directory. The folder with the package is for a
# checkout that is not installed.
_INSIDE = """\
import sys
sys.path.append(sys.argv[1])
from virtfs.cli.inside import main
sys.exit(main(sys.argv[2:]))
"""
# Runs in a new user namespace and waits until its ids are mapped. Executing a program as its root gives all
# capabilities there; executing one with an unmapped uid drops them: capabilities(7).
_WAIT = """\
import os, sys
entered, mapped = int(sys.argv[1]), int(sys.argv[2])
os.write(entered, b"\\n")
os.read(mapped, 1)
os.close(entered)
os.close(mapped)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_DEVICES = (Path("/dev/fuse"), Path("/dev/net/tun"))
_SYSCTLS = (  # what forbids user namespaces, and the value that allows them
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def shell(command: list[str]) -> int:
    """Run a command, or $SHELL; returns its exit status, 128 + n if signal n ended it.

    VirtError: what the system forbids, and what to change.
    """
    check_devices()
    command = command or [os.environ.get("SHELL") or "/bin/sh"]
    # /tmp, because other users cannot search XDG_RUNTIME_DIR, and Ubuntu's AppArmor profile of fusermount3 (25.04 and
    # newer) allows no mount in /run itself.
    directory = tempfile.mkdtemp(prefix="virtfs-")
    try:
        return _run(directory, command)
    finally:
        os.rmdir(directory)


def check_devices() -> None:
    """VirtError unless this user may open the device nodes that the server needs."""
    for device in _DEVICES:
        if not device.exists():
            module = device.name
            raise VirtError(errno.ENODEV, f"there is no {device}: as root, `modprobe {module}`")
        if not os.access(device, os.R_OK | os.W_OK):
            mode = device.stat().st_mode & 0o777
            raise VirtError(
                errno.EACCES, f"you may not open {device} (mode {mode:04o}): as root, `chmod 0666 {device}`"
            )


def _run(directory: str, command: list[str]) -> int:
    entered, entering = os.pipe()  # process 1 writes to it: the namespaces are there
    lifeline, holding = os.pipe()  # process 1 ends when we are gone, however that came
    package = os.path.dirname(os.path.dirname(os.path.abspath(virtfs.__file__)))
    names = "" if os.geteuid() else "names"
    inside = [sys.executable, "-P", "-c", _INSIDE, package, directory, names, str(entering), str(lifeline), *command]
    outside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *inside]

    def end(number: int, frame: object) -> None:
        nonlocal holding
        if holding >= 0:
            os.close(holding)
            holding = -1

    for ours in unless_ignored(signal.SIGTERM, signal.SIGHUP):
        signal.signal(ours, end)
    # Blocked for process 1 as well, from its first instruction on; it starts the command with all signals let through.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGQUIT])
    try:
        process = _start(outside, [entering, lifeline])
    except FileNotFoundError:
        raise VirtError(errno.ENOSYS, "there is no unshare(1): install util-linux") from None
    os.close(entering)
    os.close(lifeline)
    with open(entered, "rb") as pipe:
        begun = pipe.read() != b""
    status = process.wait()
    if not begun:
        raise VirtError(errno.EPERM, f"this system gave no namespaces: {_why()}")
    return status if status >= 0 else 128 - status


def _start(command: list[str], descriptors: list[int]) -> subprocess.Popen[bytes]:
    """Start a command; for an ordinary user as root of a new user namespace, if the system allows one."""
    if not os.geteuid():
        return subprocess.Popen(command, pass_fds=descriptors)
    entered, entering = os.pipe()
    waiting, mapped = os.pipe()
    wait = ["unshare", "--user", "--", sys.executable, "-I", "-S", "-c", _WAIT, str(entering), str(waiting)]
    try:
        process = subprocess.Popen([*wait, *command], pass_fds=[entering, waiting, *descriptors])
    finally:
        os.close(entering)
        os.close(waiting)
    with open(entered, "rb") as pipe, open(mapped, "wb"):
        if pipe.read(1):
            with contextlib.suppress(OSError):  # the command then fails without capabilities; _why() explains
                map_users(process.pid)
    return process


def _why() -> str:
    """What to change where unshare(1) was refused."""
    changes = [
        f"`sysctl {name}={allowing}`"
        for name, forbidding, allowing in _SYSCTLS
        if _sysctl(name) == forbidding and os.geteuid()
    ]
    if changes:
        return "as root, " + " and ".join(changes)
    return "a container needs --cap-add SYS_ADMIN and --security-opt seccomp=unconfined"


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None
