"""Process 1 of the pid namespace of `virtfs shell`. It starts the server and the command.

When process 1 exits, the kernel kills all other processes in the namespace. Before that, process 1 sends them SIGHUP,
as a closed terminal does. So a full-screen program in a joined window (shell_join.py) can restore its terminal.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from virtfs.cli.background import spawn
from virtfs.cli.lacking import CONFINED
from virtfs.cli.mount import serve_here
from virtfs.cli.options import MountOptions
from virtfs.cli.shell_mark import MOUNT_AGAIN
from virtfs.cli.shell_net import UNIT, join
from virtfs.cli.shell_run import cover_run
from virtfs.cli.signals import unless_ignored
from virtfs.cli.surroundings import complain, sentence_of
from virtfs.cli.unstarted import refusal
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.host.bridge_filter import stop_filtering

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in the PATH of ordinary users on Debian
# Seconds to wait for the server to end. After that, process 1 exits, and the kernel kills the server.
PATIENCE = 10.0
ENDING = "virtfs-ending"  # at most 15 characters, proc_pid_comm(5)
_FAREWELL = 1.0  # seconds from SIGHUP to the end of process 1


def main(arguments: list[str]) -> int:
    """Start a server at DIR, run the command, and return the exit status of the command.

    arguments, in this order:

    - DIR
    - "names" to keep the named network namespaces visible, else ""
    - "stay" to keep the working directory, or "" to make it DIR
    - the number of a descriptor: this process writes a byte to it once the namespaces exist
    - the number of the descriptor of a pipe: end of file on it means that `virtfs shell` has died
    - the number of a descriptor that becomes standard error
    - the number of the socket whose other end start_passt() reads (shell_net.py), "" without --net
    - the command, as one or more words
    """
    directory, names, stay, entering, lifeline, errors, net, *command = arguments
    os.dup2(int(errors), 2)
    os.close(int(errors))
    os.write(int(entering), b"\n")
    os.close(int(entering))
    os.set_inheritable(int(lifeline), False)
    channel = socket.socket(fileno=int(net)) if net else None
    if channel:
        channel.set_inheritable(False)
    os.environ["PATH"] = with_sbin(os.environ.get("PATH", os.defpath))
    try:
        cover_run(names=bool(names))
    except OSError as e:
        return _complain(f"cannot mount at /run: {e.strerror}; {CONFINED}", 1)
    try:
        subprocess.run(
            ["ip", "link", "set", "lo", "up"], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        stop_filtering()
        options = MountOptions(internet=UNIT if channel else None)
        server = spawn(lambda ready: serve_here(directory, options, ready, foreground=False))
    except FileNotFoundError:
        return _complain("there is no ip(8): install iproute2", 1)
    except VirtError as e:
        return _complain(e.strerror, 1)
    except (OSError, subprocess.CalledProcessError) as e:
        return _complain(_reason_of(e), 1)
    threading.Thread(target=_end_with, args=[int(lifeline), server], daemon=True).start()
    try:
        if channel:
            join(channel, directory)
    except (OSError, subprocess.CalledProcessError) as e:
        _finish(server)
        return _complain(f"no Internet: {_reason_of(e)}", 1)
    try:
        if not stay:
            os.chdir(directory)
        os.environ["VIRTFS"] = directory
        status = _run(command, server)
    finally:
        os.chdir("/")
    _finish(server)
    _hang_up(server, reap=True)
    return status


def with_sbin(path: str) -> str:
    """Return `path`, a value of $PATH, with the sbin directories and the directory of `virtfs` appended.

    Directories that `path` already contains are not appended again.
    """
    directories = path.split(os.pathsep)
    ours = os.path.dirname(sys.executable)
    more = [*_SBIN, ours] if os.access(f"{ours}/virtfs", os.X_OK) else _SBIN
    return os.pathsep.join([*directories, *(new for new in more if new not in directories)])


def _run(command: list[str], server: int) -> int:
    """Run the command and return its exit status.

    As in a shell, the status is 127 if the command is not found, and 126 if it cannot be executed. If SIGINT is
    pending, the command is not run, and the status is 130.
    """
    program = command[0] if "/" in command[0] else shutil.which(command[0])
    if program is None:
        return _complain(f"{quoted(command[0])}: command not found", 127)
    # Ctrl-C was pressed while this process made the mount.
    if signal.SIGINT in signal.sigpending() and unless_ignored(signal.SIGINT):
        return 128 + signal.SIGINT
    # Reset the signals; otherwise the command would inherit ignored and blocked signals through execve(2). Python
    # ignores these two, and `virtfs shell` has blocked others.
    default = [signal.SIGPIPE, signal.SIGXFSZ]
    try:
        child = os.posix_spawn(program, command, os.environ, setsigmask=[], setsigdef=default)
    except OSError as e:
        return _complain(*refusal(command[0], e))
    return _wait(child, server)


def _wait(command: int, server: int) -> int:
    """Reap all children, as process 1 must, until the command exits. Return the exit status of the command.

    The status is 128 + n if signal n ended the command.
    """
    while True:
        child, status = os.waitpid(-1, 0)
        if child == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if child == server:
            _complain(f"the virtfs server has exited; for a new one, without interfaces, type {MOUNT_AGAIN}", 0)


def _finish(server: int) -> None:
    """Ask the server to end, and wait for it up to PATIENCE seconds."""
    try:
        pidfd = os.pidfd_open(server)
    except ProcessLookupError:
        return
    os.kill(server, signal.SIGTERM)
    select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)


def _hang_up(server: int, reap: bool) -> None:
    """Send SIGHUP to the other processes except the server, and wait up to _FAREWELL seconds for their end.

    Before that, set the name of this process to ENDING, so that shell_join.py knows why its command ends.
    reap: whether to reap children meanwhile. No other thread may reap them then.
    """
    with suppress(OSError):
        Path("/proc/1/comm").write_text(ENDING, encoding="ascii")
    end = time.monotonic() + _FAREWELL
    for pid in _others(server):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    while _others(server) and time.monotonic() < end:
        with suppress(ChildProcessError):
            while reap and os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _others(server: int) -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()} - {os.getpid(), server}


def _end_with(lifeline: int, server: int) -> None:
    """Exit when `virtfs shell` dies. Its death closes the other end of the pipe, which makes read(2) return."""
    os.read(lifeline, 1)
    try:
        _hang_up(server, reap=False)
    finally:
        os._exit(128 + signal.SIGHUP)


def _reason_of(failure: "OSError | subprocess.CalledProcessError") -> str:
    if isinstance(failure, OSError):
        return sentence_of(failure)
    return f"{' '.join(failure.cmd)}: {(failure.stderr or '').strip() or f'exit status {failure.returncode}'}"


def _complain(sentence: str, status: int) -> int:
    complain("virtfs", sentence)
    return status
