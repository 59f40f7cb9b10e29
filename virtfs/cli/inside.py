"""Process 1 of `virtfs shell`: starts the server and the command; what is left ends with it."""

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading

from virtfs.cli.background import spawn
from virtfs.cli.mount import serve_here
from virtfs.cli.options import MountOptions
from virtfs.cli.ownrun import cover_run
from virtfs.core.errors import VirtError

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in an ordinary user's PATH on Debian
_CONTAINER = "a container may need --security-opt apparmor=unconfined"
PATIENCE = 10.0  # seconds for the server to end by itself; then the kernel ends it with the namespace


def main(arguments: list[str]) -> int:
    """Run the command beside a server; returns its exit status.

    Arguments: DIR; "names" to keep the named network namespaces, else ""; the descriptor to say "here I am" on; the one
    whose end is ours; the command.
    """
    directory, names, entering, lifeline, *command = arguments
    os.write(int(entering), b"\n")
    os.close(int(entering))
    os.set_inheritable(int(lifeline), False)
    os.environ["PATH"] = _for_root(os.environ.get("PATH", os.defpath))
    try:
        cover_run(names=bool(names))
    except OSError as e:
        return _complain(f"cannot mount at /run: {e.strerror}; {_CONTAINER}", 1)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, stdin=subprocess.DEVNULL)
        server = spawn(lambda ready: serve_here(directory, MountOptions(), ready, foreground=False))
    except FileNotFoundError:
        return _complain("there is no ip(8): install iproute2", 1)
    except (VirtError, subprocess.CalledProcessError) as e:
        return _complain(str(e.strerror if isinstance(e, VirtError) else e), 1)
    threading.Thread(target=_end_with, args=[int(lifeline)], daemon=True).start()
    try:
        os.chdir(directory)
        os.environ["VIRTFS"] = directory
        status = _run(command, server)
    finally:
        os.chdir("/")
    _finish(server)
    return status


def _for_root(path: str) -> str:
    """Append the sbin directories and the directory of virtfs itself to a PATH that lacks them."""
    directories = path.split(os.pathsep)
    ours = os.path.dirname(sys.executable)
    more = [*_SBIN, ours] if os.access(f"{ours}/virtfs", os.X_OK) else _SBIN
    return os.pathsep.join([*directories, *(new for new in more if new not in directories)])


def _run(command: list[str], server: int) -> int:
    """Run the command to its end; returns its exit status, as a shell does 126 or 127 if there is nothing to run."""
    program = command[0] if "/" in command[0] else shutil.which(command[0])
    if program is None:
        return _complain(f'"{command[0]}": command not found', 127)
    # Over exec a signal stays ignored, as Python does these two, and blocked, as we do SIGINT and SIGQUIT.
    default = [signal.SIGPIPE, signal.SIGXFSZ]
    try:
        child = os.posix_spawn(program, command, os.environ, setsigmask=[], setsigdef=default)
    except OSError as e:
        return _complain(f'"{command[0]}": {e.strerror}', 127 if e.errno == errno.ENOENT else 126)
    return _wait(child, server)


def _wait(command: int, server: int) -> int:
    """Reap whatever ends, as process 1 must, until the command does; returns its status as a shell would."""
    while True:
        child, status = os.waitpid(-1, 0)
        if child == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if child == server:
            _complain("the server has ended", 0)


def _finish(server: int) -> None:
    """Let the server clean up after itself, for a while."""
    try:
        pidfd = os.pidfd_open(server)
    except ProcessLookupError:
        return
    os.kill(server, signal.SIGTERM)
    select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: this is the end of `virtfs shell` itself
    os._exit(128 + signal.SIGHUP)


def _complain(sentence: str, status: int) -> int:
    print(f"virtfs: {sentence}", file=sys.stderr, flush=True)
    return status
