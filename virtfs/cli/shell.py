"""`virtfs shell`: a command in new namespaces with a virtfs of its own. Needs no root.

    virtfs shell ── unshare(1) ── shell_init.py, process 1 of the new pid namespace ─┬─ the server
                                                                                     └─ $SHELL or the command

An ordinary user becomes root in a new user namespace; usermap.py maps its other users. Root needs no user namespace,
and only gets the others: mount, network and pid.

All these processes except the server share the terminal's process group. Ctrl-C ends the command, while `virtfs shell`,
unshare(1) and process 1 block SIGINT. Ctrl-Z and fg stop and continue all of them together.
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

# Run with -P, so that no module is imported from the working directory. sys.argv[1] is the directory of the package,
# for a checkout that is not installed.
_INSIDE = """\
import sys
sys.path.append(sys.argv[1])
from virtfs.cli.shell_init import main
sys.exit(main(sys.argv[2:]))
"""
# Runs in a new user namespace and waits until its ids are mapped. Executing a program as root of the namespace keeps
# all capabilities in it; with an unmapped uid execve(2) drops them (capabilities(7)).
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
_SYSCTLS = (  # name, value that forbids user namespaces, value that allows them
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def shell(command: list[str]) -> int:
    """Run a command, or $SHELL if it is empty, and return its exit status, 128 + n if signal n ended it.

    VirtError: the system forbids something; the sentence says what to change.
    """
    check_devices()
    command = command or [os.environ.get("SHELL") or "/bin/sh"]
    # In /tmp: other users cannot search XDG_RUNTIME_DIR, and the AppArmor profile of fusermount3 in Ubuntu 25.04 and
    # newer allows no mounts in /run.
    directory = tempfile.mkdtemp(prefix="virtfs-")
    try:
        return _run(directory, command)
    finally:
        os.rmdir(directory)


def check_devices() -> None:
    """Check that this user may open the device nodes that the server needs. VirtError: ENODEV, EACCES."""
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
    entered, entering = os.pipe()  # process 1 writes a byte once the namespaces exist
    lifeline, holding = os.pipe()  # its end of file tells process 1 that this process has died
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
    # Process 1 inherits the blocked signals from its first instruction on. It unblocks all signals for the command.
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
        raise VirtError(errno.EPERM, f"cannot create namespaces: {_advice()}")
    return status if status >= 0 else 128 - status


def _start(command: list[str], descriptors: list[int]) -> subprocess.Popen[bytes]:
    """Start a command; for an ordinary user, as root of a new user namespace if the system allows one."""
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
            with contextlib.suppress(OSError):  # the command then fails for lack of capabilities; see _advice()
                map_users(process.pid)
    return process


def _advice() -> str:
    """Return advice on what to change after unshare(1) failed."""
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
