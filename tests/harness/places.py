"""A private network namespace and mount namespace, in which a server under test and its tools run.

A holder process keeps them alive: cat, which reads from a pipe that is closed when this process ends. Other programs
enter with nsenter(1), which executes the tool in its own process, so that a Popen's pid is that of the tool.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import children, forks
from harness.forks import Fork, Program
from harness.namespaces import processes_in, spaces_of
from harness.waiting import PATIENCE, Stuck, until

DIR = "/mnt/virt"
_SET_UP = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs {Path(DIR).parent}
mkdir -p {DIR} /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
for file in /proc/sys/net/bridge/bridge-nf-call-*; do
    [ ! -e $file ] || echo 0 >$file  # the same with the module br_netfilter as without it
done
echo
exec cat >/dev/null
"""


class Place:
    """A network namespace and a mount namespace, in which /mnt is an empty tmpfs with a directory for the mount
    point, and /run/netns is private."""

    def __init__(self) -> None:
        self._holder = children.start(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _SET_UP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._holder.pid
        self._started: list[Program] = []
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "\n"

    def command(self, *words: str, uid: int = 0) -> list[str]:
        """Return the command line that runs `words` in the namespaces."""
        proc = f"/proc/{self.pid}/ns"
        who = [f"--setuid={uid}", f"--setgid={uid}"] if uid else []
        return ["nsenter", f"--net={proc}/net", f"--mount={proc}/mnt", *who, *words]

    def start(self, *words: str, uid: int = 0, **popen: Any) -> "subprocess.Popen[str]":
        """Start a program in the namespaces. `tidy` kills it if it is still running."""
        program = children.start(self.command(*words, uid=uid), errors="replace", **popen)
        self._started.append(program)
        return program

    def fork(self, program: str, *words: str, **start: Any) -> Fork:
        """Start one of forks.PROGRAMS in the namespaces. start: keyword arguments of forks.start."""
        fork = forks.start(program, *words, place=self.pid, **start)
        self._started.append(fork)
        return fork

    def shell(self, script: str, uid: int = 0, **popen: Any) -> "subprocess.Popen[str]":
        """Start a bash script in the namespaces, in the mount point."""
        return self.start("bash", "-c", f"cd {DIR} && {script}", uid=uid, **popen)

    def sh(self, script: str, uid: int = 0, seconds: float = PATIENCE) -> str:
        """Run a bash script and return its output. AssertionError: it failed, with this standard error."""
        pipe = subprocess.PIPE
        program = self.shell(f"{{\n{script}\n}}", uid=uid, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        return _output(program, script, seconds)

    def refused(self, script: str, uid: int = 0) -> str:
        """Run a bash script that must fail, and return its standard error."""
        pipe = subprocess.PIPE
        program = self.shell(f"{{\n{script}\n}}", uid=uid, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        output, complaint = finished(program)
        assert program.returncode != 0, f"{script}: succeeded with {output!r}"
        return complaint

    def ip(self, words: str) -> str:
        """Run ip(8) in the namespaces and return its output. words: arguments, quoted as for a shell."""
        pipe = subprocess.PIPE
        return _output(self.start("ip", *shlex.split(words), stdout=pipe, stderr=pipe), f"ip {words}")

    def ips(self, lines: str) -> None:
        """Run `ip -batch` in the namespaces. lines: one command a line, without `ip`."""
        program = self.start("ip", "-batch", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, complaint = program.communicate(lines, timeout=PATIENCE)
        assert program.returncode == 0, f"{lines}: status {program.returncode}, {complaint or output}"

    def has(self, interface: str) -> bool:
        """Return whether the network namespace has an interface of that name."""
        return interface in self.links()

    def links(self) -> list[str]:
        """Return the names of the network namespace's interfaces."""
        return [line.split(":")[0].strip() for line in _rows(self.pid, "net/dev")[2:]]

    def delete_links(self, *names: str) -> None:
        """Delete interfaces, those that still exist. An interface may vanish at any moment, as a veth with its peer."""
        for name in names:
            try:
                self.ip(f"link del {name}")
            except AssertionError:
                if self.has(name):
                    raise

    def mounts(self) -> list[str]:
        """Return the mount points of FUSE file systems in the mount namespace."""
        rows = map(str.split, _rows(self.pid, "mountinfo"))
        return [row[4] for row in rows if "fuse" in row[row.index("-") + 1]]

    def processes(self) -> dict[int, str]:
        """Return the command lines, by process ID, of all processes in either namespace except the holder."""
        found = processes_in(spaces_of(self.pid))
        found.pop(self.pid, None)
        return found

    def tidy(self, *keep: int) -> dict[int, str]:
        """Kill all processes in the namespaces except `keep`. Returns the killed ones, as `processes` does."""
        left = {pid: line for pid, line in self.processes().items() if pid not in keep}
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in self._started:
            if program.pid not in keep:
                finished(program)
        self._started = [program for program in self._started if program.pid in keep]
        return left

    def close(self) -> dict[int, str]:
        """Kill all processes in the namespaces and release the namespaces. Returns the processes that were killed."""
        left = self.tidy()
        with suppress(Stuck):
            until(lambda: not self.processes(), "the killed processes are gone")
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()
        return left


def finished(program: Program, seconds: float = PATIENCE) -> tuple[str, str]:
    """Wait for a program. Returns its standard output and error, as far as they are pipes."""
    try:
        output, complaint = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        raise Stuck(f"not ended within {seconds:g} s: {shown(program.args)}") from None
    return output or "", complaint or ""


def _output(program: Program, what: str, seconds: float = PATIENCE) -> str:
    """Wait for a program that must succeed, and return its output."""
    output, complaint = finished(program, seconds)
    assert program.returncode == 0, f"{what}: status {program.returncode}, {complaint or output}"
    return output


def shown(words: object) -> str:
    """Return a command line without nsenter(1) and its options."""
    return " ".join(words[3:]) if isinstance(words, Sequence) and not isinstance(words, str) else str(words)


def _rows(pid: int, name: str) -> list[str]:
    """Return the lines of a process's file in /proc."""
    return Path(f"/proc/{pid}/{name}").read_text().splitlines()
