"""`virtfs shell --join`: run a command in the namespaces of a `virtfs shell` that already runs, in another window.

nsenter(1) enters the namespaces of process 1 (shell_init.py), and executes the program _INSIDE. That forks, because
setns(2) moves only children to the pid namespace, and waits for the command, its child. The command ends with the
shell: process 1 sends it SIGHUP, and when process 1 exits, the kernel kills all processes of the pid namespace.
"""

import errno
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import virtfs
from virtfs.cli.shell_init import ENDING, with_sbin
from virtfs.cli.shell_mark import MARK, MOUNT_AGAIN
from virtfs.cli.surroundings import name_caller
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.fuse.mounttable import parse

# nsenter(1) has changed the working directory to the root, and this process blocks signals that the command must get.
# The command gets SIGHUP if this process ends first (prctl(2), PR_SET_PDEATHSIG). If the command alone is stopped, or
# ends by a signal, so does this process. After Ctrl-Z and fg, which stop and continue both, there is nothing to do.
_INSIDE = f"""\
import ctypes, os, signal, sys
package, directory, *command = sys.argv[1:]

def run():
    ctypes.CDLL(None).prctl(1, signal.SIGHUP)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvp(command[0], command)
    except OSError as e:
        sys.path.append(package)
        from virtfs.cli.surroundings import complain
        from virtfs.cli.unstarted import refusal
        sentence, status = refusal(directory if e.filename == directory else command[0], e)
        complain("virtfs", sentence)
        os._exit(status)

def wait(child):
    while True:
        os.waitid(os.P_PID, child, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        found, status = os.waitpid(child, os.WUNTRACED | os.WNOHANG)
        if found and not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        if found:
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)

def ended():
    try:
        with open("/proc/1/comm") as name:
            return name.read().strip() == "{ENDING}"
    except (FileNotFoundError, ProcessLookupError):
        return True

child = os.fork()
if not child:
    run()
status = wait(child)
if ended():
    print("virtfs: the virtfs shell has ended", file=sys.stderr, flush=True)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-status])
    os.kill(os.getpid(), -status)
sys.exit(status)
"""
_NAMESPACES = ("user", "mnt", "net", "pid")


class Running(NamedTuple):
    """A `virtfs shell` of this user.

    pid: its process 1. directory: its mount point. mounted: whether a virtfs is mounted there.
    """

    pid: int
    directory: str
    mounted: bool


def running() -> list[Running]:
    """Return the shells of this user, sorted by mount point."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError, ValueError):  # the process has ended, or belongs to another user
            process = Path("/proc", name)
            words = (process / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
            program = next((at for at, word in enumerate(words) if MARK in word), -1)
            if program < 0 or process.stat().st_uid != os.geteuid() or not _is_first(process):
                continue
            directory = words[program + 2]  # after the directory of the package
            mounted = parse((process / "mountinfo").read_bytes())
            place = os.path.realpath(directory)
            ready = any(mount.virtfs and mount.directory == place for mount in mounted)
            found.append(Running(int(name), directory, ready))
    return sorted(found, key=lambda shell: shell.directory)


def _is_first(process: Path) -> bool:
    """Return whether a process is process 1 of its pid namespace (proc_pid_status(5), NSpid)."""
    _, _, rest = (process / "status").read_text().partition("NSpid:")
    return rest.split("\n", 1)[0].split()[-1] == "1"


def join(directory: str | None, command: list[str], stay: bool = False) -> int:
    """Replace this process with a command, or $SHELL, in the namespaces of a running shell.

    directory: the mount point of the shell, or None for the only shell. stay: as in shell().
    VirtError: ENOENT, no such shell runs, or it has no mount; EINVAL, several shells run; ENOSYS, nsenter(1) is not
    installed.
    """
    shell = _chosen(directory)
    command = command or [os.environ.get("SHELL") or "/bin/sh"]
    if "/" in command[0]:
        command = [os.path.abspath(command[0]), *command[1:]]
    package = os.path.dirname(os.path.dirname(os.path.abspath(virtfs.__file__)))
    own = Path("/proc/self/ns")
    other = Path(f"/proc/{shell.pid}/ns")
    spaces = [name for name in _NAMESPACES if (own / name).stat().st_ino != (other / name).stat().st_ino]
    # The ids of the caller are mapped to 0 (usermap.py). setgroups(2) may be denied, so nsenter(1) must not call it.
    options = ["--preserve-credentials", *(f"--{'mount' if name == 'mnt' else name}" for name in spaces)]
    os.environ["VIRTFS"] = shell.directory
    name_caller()
    os.environ["PATH"] = with_sbin(os.environ.get("PATH", os.defpath))
    inside = [sys.executable, "-I", "-S", "-c", _INSIDE, package, os.getcwd() if stay else shell.directory, *command]
    # As in shell(), Ctrl-C ends only the command.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGQUIT])
    words = ["nsenter", "--target", str(shell.pid), *options, "--no-fork", *inside]
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        raise VirtError(errno.ENOSYS, "there is no nsenter(1): install util-linux") from None


def _chosen(directory: str | None) -> Running:
    shells = running()
    if directory is not None:
        wanted = os.path.abspath(directory)
        shells = [shell for shell in shells if shell.directory == wanted]
        if not shells:
            raise VirtError(errno.ENOENT, f"no virtfs shell of this user has the mount {quoted(directory)}")
    if not shells:
        raise VirtError(errno.ENOENT, "no virtfs shell of this user runs: start one with virtfs shell")
    if not any(shell.mounted for shell in shells):
        sentence = f"the virtfs shell with {quoted(shells[0].directory)} has no mount: type {MOUNT_AGAIN} in its window"
        raise VirtError(errno.ENOENT, sentence)
    shells = [shell for shell in shells if shell.mounted]
    if len(shells) > 1:
        them = ", ".join(shell.directory for shell in shells)
        raise VirtError(errno.EINVAL, f"several virtfs shells run: choose one by its $VIRTFS with -d: {them}")
    return shells[0]
