"""Run virtfs as a user does: as a program with pipes or a terminal, in namespaces that end with it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import children
from harness.waiting import PATIENCE
from virtfs.fuse.mounttable import mounted_at

ROOT = Path(__file__).parents[2]
VIRTFS = [sys.executable, "-m", "virtfs"]
HELPER = [sys.executable, "-c", "import sys; from virtfs.cli.helper import main; sys.exit(main())"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}

# An ordinary user, who need not have an account. The user namespace maps root to this user, so root's files, such as
# this checkout, can still be read; root's capabilities on the host are gone.
USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
NEW_NETWORK = ["unshare", "--net", "--"]
# unshare(1) ends with the process that runs it, and its namespace with unshare(1).
_MORTAL = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def run(command: Sequence[str], seconds: float = PATIENCE, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to completion, and return its status and its output as text.

    TimeoutExpired: it did not end within this time. What it has started is killed: unshare --kill-child does not do
    that for a process that has changed its user.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def script(text: str, *arguments: str, before: Sequence[str] = NEW_NETWORK) -> subprocess.CompletedProcess[str]:
    """Run a shell script in new network, mount and process namespaces. $virtfs runs virtfs.

    When the script or this process ends, even by SIGKILL, the kernel kills what the script has started.
    before: the command prefix that creates the network namespace
    """
    return run(
        [*before, *_MORTAL, "--mount", "--", "sh", "-euc", text, "sh", *arguments],
        seconds=2 * PATIENCE,  # a script runs several commands
        virtfs=" ".join(VIRTFS),
    )


def until(condition: object, what: str) -> None:
    """Wait until condition() is true. `what` names the awaited event in the error message."""
    assert callable(condition)
    end = time.monotonic() + PATIENCE
    pause = select.poll()
    while not condition():
        assert time.monotonic() < end, f"timed out waiting for {what}"
        pause.poll(20)


def mounted(directory: Path) -> bool:
    return mounted_at(str(directory)) is not None


@dataclass
class Server:
    """`virtfs mount -f`, in a network namespace of its own."""

    process: subprocess.Popen[str]
    directory: Path
    network: int  # a descriptor of the network namespace, which keeps the namespace when the process has ended

    def ip(self, *arguments: str) -> str:
        """Run ip(8) in the server's network namespace."""
        namespace = f"--net=/proc/{os.getpid()}/fd/{self.network}"
        done = subprocess.run(["nsenter", namespace, "ip", *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def reader(self) -> subprocess.Popen[str]:
        """Start a dd(1) that waits for a frame of virt3."""
        reader = children.start(
            ["dd", f"if={self.directory}/virt3/frame", "of=/dev/null", "bs=2048", "count=1", "status=none"],
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        until(lambda: _waits_in_read(reader.pid), "a waiting reader")
        return reader


def _waits_in_read(pid: int) -> bool:
    """Return whether a process waits in read(2) for a FUSE server, according to proc_pid_stack(5).

    The stack tells this apart from waiting in open(2).
    """
    stack = Path(f"/proc/{pid}/stack").read_text()
    return "vfs_read" in stack and "fuse" in stack


@contextmanager
def serving(directory: Path, *options: str, command: Sequence[str] = VIRTFS) -> Iterator[Server]:
    """Yield a server that has mounted. It is killed at the end if it still runs."""
    process = children.start(
        [*NEW_NETWORK, *command, "mount", "-f", *options, str(directory)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
    )
    network = -1
    try:
        assert process.stderr is not None
        said = ""
        while "is mounted" not in said:
            line = process.stderr.readline()
            assert line, f"the server did not start: {said}"
            said += line
        network = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        yield Server(process, directory, network)
    finally:
        process.kill()
        process.wait()
        if network >= 0:
            os.close(network)
        if mounted(directory):
            subprocess.run(["umount", "-l", str(directory)], check=False)


@dataclass
class Terminal:
    """A program with a terminal of its own."""

    pid: int
    master: int
    seen: str = field(default="")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait until the output matches `pattern`. Returns the match, and discards the output up to its end."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"expected {pattern!r}, but the program printed {self.seen!r}"
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError as e:  # EIO: no process has the terminal open
                raise AssertionError(f"expected {pattern!r}, but the program ended after {self.seen!r}") from e
        self.seen = self.seen[found.end() :]
        return found[0]


@contextmanager
def terminal(command: list[str]) -> Iterator[Terminal]:
    """Run a command as the leader of a session with a new terminal."""
    pid, master = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and the command would inherit that
        os.execvpe(command[0], command, ENVIRONMENT | {"PS1": "ready> ", "TERM": "dumb"})
    try:
        yield Terminal(pid, master)
    finally:
        os.close(master)  # sends SIGHUP to the session's leader and to its foreground processes
        os.waitpid(pid, 0)
