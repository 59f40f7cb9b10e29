"""`virtfs shell`: run a command in new namespaces, with a private virtfs. The caller need not be root.

    virtfs shell ── unshare(1) ── shell_init.py, process 1 of the new pid namespace ─┬─ the server
                                                                                     └─ $SHELL or the command

An ordinary user becomes root in a new user namespace, and usermap.py maps the other ids of this namespace. Root needs
no user namespace, and gets only new mount, network and pid namespaces.

All these processes except the server are in the process group of `virtfs shell`. Ctrl-C ends only the command,
because `virtfs shell`, unshare(1) and process 1 block SIGINT. Ctrl-Z and fg stop and continue the whole group.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import virtfs
from virtfs.cli.lacking import CONFINED, FOR_A_SHELL, UNMASKED, lacking
from virtfs.cli.shell_mark import MARK, inside
from virtfs.cli.shell_net import check_passt, start_passt
from virtfs.cli.signals import unless_ignored
from virtfs.cli.surroundings import complain, name_caller
from virtfs.cli.unstarted import TOO_MANY
from virtfs.cli.usermap import map_users
from virtfs.client import temporary
from virtfs.client.device_nodes import FUSE, TUN, check_devices
from virtfs.core.errors import VirtError
from virtfs.host.textfiles import read_text

# The program of process 1. Python runs it with -P, so that no module is imported from the working directory.
# sys.argv[1] is the directory that contains the package, so that a checkout need not be installed.
_INSIDE = f"""\
import sys
sys.path.append(sys.argv[1])
{MARK}
sys.exit(main(sys.argv[2:]))
"""
# This program runs in a new user namespace. It waits until the ids are mapped, and then executes a command. As root of
# the namespace, the command keeps all capabilities. With an unmapped uid, execve(2) would drop them (capabilities(7)).
_WAIT = """\
import os, sys
entered, mapped = int(sys.argv[1]), int(sys.argv[2])
os.write(entered, b"\\n")
os.read(mapped, 1)
os.close(entered)
os.close(mapped)
os.execvp(sys.argv[3], sys.argv[3:])
"""
# Sysctls: the name, the value that forbids user namespaces, and a value that allows them.
_SYSCTLS = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
# Sysctls that forbid the other namespaces, also to root, if they are 0 (namespaces(7)).
_LIMITS = tuple(f"user.max_{kind}_namespaces" for kind in ("mnt", "net", "pid"))


def shell(command: list[str], stay: bool = False, net: bool = False) -> int:
    """Run a command, or $SHELL if `command` is empty, and return the exit status.

    stay: whether the command starts in the caller's working directory instead of the mount point.
    net: whether the namespaces get the Internet through passt(1).

    The status is 128 + n if signal n ended the command.
    VirtError: the system forbids namespaces or access to a device; the error message says what to change.
    """
    check_devices(FUSE, TUN)
    name_caller()
    if not os.geteuid() and (missing := lacking(FOR_A_SHELL)):
        raise VirtError(errno.EPERM, f"cannot create namespaces: {missing}")
    if net:
        check_passt()
    if not command and inside():
        there = os.environ.get("VIRTFS", "another directory")
        complain("virtfs", f"you are inside the virtfs shell at {there}; exit leads back to its interfaces")
    command = command or [os.environ.get("SHELL") or "/bin/sh"]
    if "/" in command[0]:  # relative to the working directory of the caller, which may not be that of the command
        command = [os.path.abspath(command[0]), *command[1:]]
    # Use /tmp, because other users cannot search XDG_RUNTIME_DIR, and because the AppArmor profile of fusermount3 in
    # Ubuntu 25.04 and newer allows no mounts in /run.
    directory, lock = temporary.make()
    try:
        return _run(str(directory), command, stay, net)
    finally:
        temporary.remove(directory, lock)


def _run(directory: str, command: list[str], stay: bool, net: bool) -> int:
    # Process 1 writes a byte to this pipe once the namespaces exist.
    entered, entering = os.pipe()
    # End of file on this pipe tells process 1 that this process has died.
    lifeline, holding = os.pipe()
    errors = os.dup(2)  # for process 1; unshare(1) writes its own errors to `said`
    outer, inner = socket.socketpair()  # through this pair, process 1 sends the socket that passt is to serve
    package = os.path.dirname(os.path.dirname(os.path.abspath(virtfs.__file__)))
    # The names of an outer virtfs shell stay its own: a lesson creates the same names in each shell.
    names = "" if os.geteuid() or inside() else "names"
    first = [
        sys.executable,
        "-X",
        "utf8",
        "-P",
        "-c",
        _INSIDE,
        package,
        directory,
        names,
        "stay" if stay else "",
        str(entering),
        str(lifeline),
        str(errors),
        str(inner.fileno()) if net else "",
        *command,
    ]
    outside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *first]

    def end(number: int, frame: object) -> None:
        nonlocal holding
        if holding >= 0:
            os.close(holding)
            holding = -1

    for ours in unless_ignored(signal.SIGTERM, signal.SIGHUP):
        signal.signal(ours, end)
    # Process 1 inherits this mask, so it starts with these signals blocked. It unblocks them for the command.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGQUIT])
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            process = _start(outside, [entering, lifeline, errors, *([inner.fileno()] if net else [])], said)
        except FileNotFoundError:
            raise VirtError(errno.ENOSYS, "there is no unshare(1): install util-linux") from None
        for descriptor in (entering, lifeline, errors):
            os.close(descriptor)
        inner.close()
        with open(entered, "rb") as pipe:
            begun = pipe.read(1) != b""
        if net:
            start_passt(outer)
        status = process.wait()
        if not begun:
            said.seek(0)
            reason = said.read().strip().rpartition("\n")[2].removeprefix("unshare: ") or "unshare(1) failed"
            advice = TOO_MANY if os.strerror(errno.EAGAIN) in reason else _advice(reason)
            raise VirtError(errno.EPERM, f"cannot create namespaces: {reason}: {advice}")
    return status if status >= 0 else 128 - status


def _start(command: list[str], descriptors: list[int], errors: IO[str]) -> subprocess.Popen[bytes]:
    """Start a command. If the caller is not root, the command runs as root of a new user namespace.

    If the system forbids user namespaces, the returned process fails without running the command.
    errors: the file that becomes standard error of the command.
    """
    if not os.geteuid():
        return subprocess.Popen(command, pass_fds=descriptors, stderr=errors)
    entered, entering = os.pipe()
    waiting, mapped = os.pipe()
    wait = ["unshare", "--user", "--", sys.executable, "-I", "-S", "-c", _WAIT, str(entering), str(waiting)]
    try:
        process = subprocess.Popen([*wait, *command], pass_fds=[entering, waiting, *descriptors], stderr=errors)
    finally:
        os.close(entering)
        os.close(waiting)
    with open(entered, "rb") as pipe, open(mapped, "wb"):
        if pipe.read(1):
            # If map_users() fails, the command fails for lack of capabilities, and _advice() says what to change.
            with contextlib.suppress(OSError):
                map_users(process.pid)
    return process


def _advice(reason: str) -> str:
    """Return advice on how to make unshare(1) succeed, as the end of an error message. reason: that of unshare(1)."""
    if reason == f"mount /proc failed: {os.strerror(errno.EPERM)}":
        return f"the /proc of a container hides files, and the kernel then forbids a new one: it needs {UNMASKED}"
    changes = [
        f"`sysctl {name}={allowing}`"
        for name, forbidding, allowing in _SYSCTLS
        if _sysctl(name) == forbidding and os.geteuid()
    ]
    changes += [f"`sysctl {name}=15000`" for name in _LIMITS if _sysctl(name) == "0"]
    if changes:
        return "as root, run " + " and ".join(changes)
    if os.strerror(errno.EACCES) in reason:  # of mount(2), where AppArmor forbids it
        return CONFINED
    more = f" and {UNMASKED}" if os.geteuid() else ""
    return f"a container needs --security-opt seccomp=unconfined{more}"


def _sysctl(name: str) -> str | None:
    try:
        return read_text(Path("/proc/sys", *name.split("."))).strip()
    except OSError:
        return None
