"""Starts Python programs fast: a server that has imported all modules forks a child for each program.

virtfs needs 0.4 s of processor time for its imports. A fork of a process that has imported them takes 10 ms. Each
pytest process starts one fork server when it first needs one, and a new one if that server has been killed. The server
has one thread. A child leads a new session, enters the namespaces given in the request, and ends as any Python program
does.

The server ends with the pytest process, even after kill -9, because the kernel then closes the other end of its control
socket. Before that, it kills all processes in the namespaces of its children. With them, mounts and interfaces vanish.

`start` sends a request and returns a `Fork`, which has those members of subprocess.Popen that tests use. Tests of how a
program starts (environment, limits, standard streams) use `children.start` instead.
"""

import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple

from harness import children
from harness.namespaces import KINDS, Space, processes_in, spaces_of

TESTS = Path(__file__).parents[1]
FIRST = 3  # the descriptor number of a program's first file (see `start`)
# A message in a status pipe: whether the child has ended, and its exit status if it has, otherwise its process ID.
_STATUS = struct.Struct("?i")
_ROOM, _MOST_FILES = 1 << 20, 16  # the largest request: bytes, descriptors
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_CLOSED = -signal.SIGKILL  # the exit status to report if the server has been killed, and the child with it


class Request(NamedTuple):
    """A request to start a program. namespaces: how many of the descriptors sent with it refer to namespaces.

    These descriptors are, in this order: status pipe, standard streams, namespaces, the program's files.
    """

    program: str
    words: Sequence[str]
    environment: dict[str, str]
    namespaces: int


class Fork:
    """A program that the server has started. The attributes and methods work like those of subprocess.Popen."""

    def __init__(self, args: list[str], status: int, stderr: IO[str] | None) -> None:
        self.args = args
        self.stdout: IO[str] | None = None
        self.stderr = stderr
        self.returncode: int | None = None
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = 0
        self._read()

    def _read(self) -> None:
        """Wait for the next message: first that the child is in its namespaces, then that it has ended."""
        data = self._status.read(_STATUS.size)
        ended, number = _STATUS.unpack(data) if data else (True, _CLOSED)
        if ended:
            self.returncode = number
            self._status.close()
        else:
            self.pid = number

    def poll(self) -> int | None:
        """Return the exit status, or None while the program runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the program to end and return its exit status. TimeoutExpired: `timeout` seconds have passed."""
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._status, select.POLLIN)
            if not poller.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Wait for the program to end. Returns None and the rest of its standard error (None if not a pipe)."""
        self.wait(timeout)
        return None, self.stderr.read() if self.stderr else None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program is known to have ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


Program = subprocess.Popen[str] | Fork


class _Server:
    """The running fork server, as this process sees it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = f"{TESTS}:{TESTS.parent}"
        with theirs:
            self._process = children.start(
                [sys.executable, "-m", "harness.forks", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], cwd=TESTS, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def runs(self) -> bool:
        """Return whether the server is running."""
        return self._process.poll() is None

    def ask(self, request: Request, files: Sequence[int]) -> None:
        """Send a request."""
        socket.send_fds(self._control, [pickle.dumps(request)], files)

    def end(self) -> None:
        """End the server, and kill the programs that it has started."""
        self._control.close()
        self._process.wait()


_server: _Server | None = None


def end() -> None:
    """End the server of this process, if it has one."""
    global _server
    if _server is not None:
        _server.end()
        _server = None


def start(
    program: str,
    *words: str,
    place: int = 0,
    environment: dict[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    files: Sequence[int] = (),
) -> Fork:
    """Start one of PROGRAMS.

    place: ID of a process in whose network and mount namespaces the program runs (0: in those of the server). stdout,
    stderr: as for subprocess.Popen, but stdout cannot be a pipe. files: descriptors that the program inherits as 3, 4 …
    """
    global _server
    if _server is None or not _server.runs():
        end()
        _server = _Server()
    with ExitStack() as opened:

        def kept(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        status, theirs = os.pipe()
        null = kept(os.open(os.devnull, os.O_RDWR))
        complaints: IO[str] | None = None
        if stderr == subprocess.PIPE:
            reader, stderr = os.pipe()
            kept(stderr)
            complaints = os.fdopen(reader, errors="replace")
        streams = [null, *(null if fd == subprocess.DEVNULL else fd for fd in (stdout, stderr))]
        spaces = [kept(os.open(f"/proc/{place}/ns/{kind}", os.O_RDONLY)) for kind in KINDS] if place else []
        request = Request(program, words, dict(os.environ) if environment is None else environment, len(spaces))
        standard = [number if fd is None else fd for number, fd in enumerate(streams)]
        _server.ask(request, [kept(theirs), *standard, *spaces, *files])
    return Fork([program, *words], status, complaints)


# --- in the server


def _virtfs(*words: str) -> int:
    faulthandler.register(signal.SIGUSR1)  # show the stacks on standard error
    from harness import blocking, freed, kill_points
    from virtfs.cli import main

    kill_points.install()
    blocking.watch()
    freed.watch()
    sys.argv = ["virtfs", *words]
    return main.main()


def _lacking(capability: str, *words: str) -> int:
    """Run virtfs without one of the capabilities that it needs."""
    from virtfs.host import privileges

    privileges.drop(set(privileges.Capability) - {privileges.Capability[capability]})
    return _virtfs(*words)


def _agent(*words: str) -> int:
    from harness import agent

    agent.main(*words)
    return 0


_USED = (
    "harness.blocking",
    "harness.freed",
    "harness.kill_points",
    "harness.agent",
    "virtfs.cli.main",
    "virtfs.cli.serving",
)
PROGRAMS: dict[str, Callable[..., int]] = {"virtfs": _virtfs, "lacking": _lacking, "agent": _agent}


def serve(control: socket.socket) -> Callable[[], int] | None:
    """Fork children until the tests close their end of the socket. Then kill the programs that are left.

    Returns, in each child, the function to call.
    """
    running: dict[int, tuple[int, int]] = {}  # process id and status pipe, by pidfd
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready != control.fileno():
                pid, status = running.pop(ready)
                poller.unregister(ready)
                os.close(ready)
                _tell(status, True, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(status)
                continue
            message, (*files,), _, _ = socket.recv_fds(control, _ROOM, _MOST_FILES)
            if not message:
                _kill_all([pid for pid, _ in running.values()])
                return None
            status, *rest = files
            if (pid := os.fork()) == 0:
                control.close()
                request: Request = Request(*pickle.loads(message))
                return lambda: _child(request, status, rest)
            for fd in rest:
                os.close(fd)
            child = os.pidfd_open(pid)
            running[child] = pid, status
            poller.register(child, select.POLLIN)


def _kill_all(children: Sequence[int]) -> None:
    """Kill the children, and the other processes in those of their namespaces that are not the server's."""
    private = set[Space]()
    for child in children:
        with suppress(OSError):
            private |= spaces_of(child)
    for pid in {*children, *processes_in(private - spaces_of(os.getpid()))}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell(status: int, ended: bool, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(status, _STATUS.pack(ended, number))


def _child(request: Request, status: int, files: list[int]) -> int:
    """Run the requested program in this process. files: standard streams, namespaces, the program's files."""
    os.setsid()
    gc.enable()
    spaces = files[3 : 3 + request.namespaces]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # end with the server; a change of the user clears this
    for space in spaces:
        if libc.setns(space, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _tell(status, False, os.getpid())
    own = files[:3] + files[3 + request.namespaces :]
    above = max(files) + len(own)  # from here on, no number is in use or is a final one
    for number, fd in enumerate(own):
        os.dup2(fd, above + number)
    for number in range(len(own)):
        os.dup2(above + number, number)
    os.closerange(len(own), os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request.environment)
    return PROGRAMS[request.program](*request.words)


def main(control: str) -> int:
    """Run the server, and in each child its program."""
    for module in _USED:
        importlib.import_module(module)
    gc.disable()
    gc.collect()
    gc.freeze()
    program = serve(socket.socket(fileno=int(control)))
    return program() if program else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
