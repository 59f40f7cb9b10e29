"""A server under test, in its own process and namespaces."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import children, forks, programs
from harness.forks import Program
from harness.places import DIR, Place
from harness.process import File, Process
from harness.waiting import PATIENCE, Stuck, until

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}


# `python -m virtfs`, but SIGUSR1 shows the stacks on standard error, as in a fork.
_PROGRAM = (
    "import faulthandler, signal; faulthandler.register(signal.SIGUSR1);"
    "from virtfs.cli.main import main; raise SystemExit(main())"
)


class Mount(Place):
    """A virtfs mounted at /mnt/virt, in its own namespaces. Path arguments are relative to the mount.

    options: mount options, as after -o. before: a command that executes its arguments, such as prlimit(1); the server
    is then started by this command, not forked. broken: whether a program or the server has hung; such a mount must not
    be used any more. lacks: the name of a capability that the server does not get.
    """

    def __init__(self, options: str = "", before: Sequence[str] = (), lacks: str = "") -> None:
        super().__init__()
        self._before = before
        self._program = ["lacking", lacks] if lacks else ["virtfs"]
        self.broken = False
        self.log: list[str] = []
        self._root: Process | None = None
        try:
            self._serve(options)
        except Stuck:
            self.stop()
            raise

    def _serve(self, options: str) -> None:
        """Start a server and wait for the mount."""
        if not self.begin(options).wait(PATIENCE) or not any("is mounted" in line for line in self.log):
            self.broken = True
            raise Stuck("the server has not mounted:\n" + "".join(self.log))

    def begin(self, options: str = "") -> threading.Event:
        """Start a server. Returns an event that is set when the server has mounted or ended."""
        words = ["mount", "-f", *(["-o", options] if options else []), DIR]
        streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        self.server: Program
        if self._before:
            command = self.command(*self._before, sys.executable, "-c", _PROGRAM, *words)
            self.server = children.start(command, env=ENVIRONMENT, **streams)
        else:
            self.server = forks.start(*self._program, *words, place=self.pid, environment=ENVIRONMENT, **streams)
        mounted = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=[mounted], daemon=True)
        self._listener.start()
        return mounted

    def _listen(self, mounted: threading.Event) -> None:
        assert self.server.stderr is not None
        for line in self.server.stderr:
            self.log.append(line)
            if "is mounted" in line:
                mounted.set()
        mounted.set()  # the server has ended

    @property
    def root(self) -> Process:
        """The agent that runs as root and is kept from test to test."""
        if self._root is None:
            self._root = Process(self)
        return self._root

    def process(self, uid: int = 0) -> Process:
        """Start an agent for one test."""
        return Process(self, uid)

    def write(self, path: str, text: str) -> None:
        """Write to a file as a shell's `>` does, in one write(2)."""
        file = self.root.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            file.write(text)
        finally:
            file.close()

    def read(self, path: str) -> str:
        """Return the text of a file without the newline at its end."""
        return self.root.call(Path.read_text, Path(DIR, path)).removesuffix("\n")

    def texts(self, paths: Iterable[str]) -> list[str]:
        """Return the texts of several files, as `read` does."""
        texts = self.root.call(programs.texts, [Path(DIR, path) for path in paths])
        return [text.removesuffix("\n") for text in texts]

    def ctl(self, line: str) -> None:
        """Write one command or several lines to ctl."""
        self.write("ctl", f"{line}\n")

    def exists(self, path: str) -> bool:
        """Return whether a name exists. Links are not followed."""
        return self.root.call(os.path.lexists, f"{DIR}/{path}")

    def units(self) -> list[str]:
        """Return the names of the interfaces: virt0, virt1 …"""
        return [name for name in self.root.call(os.listdir, DIR) if name.startswith("virt")]

    def descriptors(self) -> list[str]:
        """Return what the server's open descriptors refer to."""
        names = []
        for fd in os.listdir(f"/proc/{self.server.pid}/fd"):
            with suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/{self.server.pid}/fd/{fd}"))
        return sorted(names)

    def clean(self) -> None:
        """Kill the programs of a test and destroy its interfaces. The root agent is kept if it is idle."""
        if self.server.poll() is not None or self.broken:
            self.end_programs()
            return
        self.tidy(self.server.pid, self.root.pid)
        for virt in self.units():
            self.ctl(f"destroy {virt}")
        if not self.root.let_go():
            self.end_programs()

    def end_programs(self) -> None:
        """Kill all processes in the namespaces except the server."""
        self._root = None
        self.tidy(self.server.pid)

    def stacks(self) -> None:
        """Have the server write its stacks to the log."""
        if self.server.poll() is None:
            seen = len(self.log)
            self.server.send_signal(signal.SIGUSR1)
            with suppress(Stuck):
                until(lambda: any("File" in line for line in self.log[seen:]), "stacks")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the server and return its exit status."""
        self.server.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the server to end and return its exit status. Stuck: it does not end."""
        try:
            status = self.server.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.broken = True
            self.stacks()
            raise Stuck("the server has not ended:\n" + "".join(self.log)) from None
        self._listener.join()
        return status

    def stop(self) -> list[str]:
        """End the mount, by force if it is broken. Returns a list of faults, such as interfaces left behind."""
        wrong = []
        if self.server.poll() is None and not self.broken:
            self.end_programs()
            try:
                if (status := self.end()) != 0:
                    wrong.append(f"the server ended with status {status}")
            except Stuck as stuck:
                wrong.append(str(stuck))
        if self.broken:
            subprocess.run(self.command("umount", "--lazy", DIR), capture_output=True, check=False)
            self.server.kill()
            self.server.wait()
        self.end_programs()
        if not self.broken:
            wrong += [f"left behind: interface {name}" for name in self.links() if name != "lo"]
            wrong += [f"left behind: mount {path}" for path in self.mounts()]
            self.end_programs()
        with suppress(Stuck):
            until(lambda: not self.processes(), "a shell whose terminal has gone ends too", PATIENCE / 10)
        wrong += [f"left behind: process {pid} {line}" for pid, line in self.close().items()]
        if re.search(r"Traceback|Error|failed|refused:", "".join(self.log)) and not self.broken:
            wrong.append("the server complained:\n" + "".join(self.log))
        self._listener.join()
        if self.server.stderr is not None:
            self.server.stderr.close()
        return wrong


class Virt:
    """An interface made for one test, with the defaults of `create`. verbs: settings that differ from them."""

    def __init__(self, mount: Mount, unit: int, verbs: str = "up") -> None:
        self.mount = mount
        self.unit = unit
        self.name = f"virt{unit}"
        self.tap = f"tap{unit}"
        mount.ctl(f"ensure {unit} {verbs}")
        self.listen()

    def listen(self) -> None:
        """Open the sockets of `host_sends` and `host_gets` again, for a tap that may have been recreated."""
        self._wire = self.mount.root.call(programs.wire, self.tap)

    def set(self, verbs: str) -> None:
        """Write verbs to the interface's ctl."""
        self.mount.write(f"{self.name}/ctl", f"{verbs}\n")

    def open(self, flags: int = os.O_RDWR, process: Process | None = None) -> File:
        """Open the frame file."""
        return (process or self.mount.root).open(f"{self.name}/frame", flags)

    def read(self, file: str) -> str:
        """Return the text of one of the interface's files."""
        return self.mount.read(f"{self.name}/{file}")

    def until(self, file: str, value: str) -> None:
        """Wait until a text file has this value."""
        until(lambda: self.read(file) == value, f"{self.name}/{file} is {value}")

    def write(self, file: str, text: str) -> None:
        """Write to one of the interface's text files."""
        self.mount.write(f"{self.name}/{file}", text)

    def count(self, name: str) -> int:
        """Return a counter from stats/."""
        return int(self.read(f"stats/{name}"))

    def host_sends(self, *frames: bytes) -> None:
        """Send frames from the host through the tap."""
        self.mount.root.call(programs.send, self._wire, frames)

    def host_gets(self) -> bytes:
        """Return the next test frame that reaches the host through the tap."""
        return self.mount.root.call(programs.next_from_virt, self._wire, PATIENCE / 2)


Virts = Callable[..., Virt]  # the type of the fixture `virts`


def frame(length: int = 60, number: int = 0) -> bytes:
    """Return a broadcast frame whose content depends on length and number."""
    head = b"\xff" * 6 + b"\xb2\x0a\x00\x0b\x0e\x01" + programs.EXPERIMENTAL
    pattern = bytes((number + i * (length % 251 + 1)) % 256 for i in range(256))
    return (head + number.to_bytes(4, "big") + pattern * (length // 256 + 1))[:length]
