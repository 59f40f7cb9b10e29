"""Netns: a network namespace for a test, and the programs that run in it."""

import errno
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, TypeVar

from virtfs.client import waiting
from virtfs.testing.needs import check_namespace
from virtfs.testing.server import dying_with_us, found

N = TypeVar("N", bound="Netns")

# The holder keeps the namespace alive. IPv6 addresses are usable at once, without duplicate address detection, which
# takes 1 to 2 s and sends frames (net/ipv6/addrconf.c addrconf_dad_begin). Frames between the ports of a bridge pass
# unchanged, even where the module br_netfilter sends them through iptables (virtfs/host/bridge_filter.py).
_HOLD = """
ip link set lo up
file=/proc/sys/net/ipv6/conf/default/accept_dad
[ ! -w $file ] || echo 0 >$file
for file in /proc/sys/net/bridge/bridge-nf-call-*; do
    [ ! -w $file ] || echo 0 >$file
done
echo
exec sleep infinity
"""

# A neighbour is confirmed for half of base_reachable at least, and a used one is checked after delay_probe, both in ms
# (net/core/neighbour.c neigh_rand_reach_time, neigh_timer_handler). Each interface has settings of its own, which begin
# with those of the machine's first namespace, whatever its namespace (neigh_parms_alloc). They are set by netlink,
# because /proc/sys of a container is read-only. An MTU below 1280 leaves an interface without IPv6.
_REMEMBER = """
times='base_reachable 7200000 delay_probe 3600000'
ip ntable change name arp_cache dev "$1" $times
[ ! -e "/proc/sys/net/ipv6/neigh/$1" ] || ip ntable change name ndisc_cache dev "$1" $times
"""

# Makes a socket, and sends it over standard input. Sends the number of the error if that fails.
_MAKE_SOCKET = """
import socket, sys
caller = socket.socket(fileno=0)
try:
    made = socket.socket(*map(int, sys.argv[1:]))
except OSError as error:
    caller.send(str(error.errno).encode())
else:
    socket.send_fds(caller, [b"."], [made.fileno()])
"""

_PATIENCE: Final = 30.0  # maximum number of seconds to wait for a listening program
_LISTEN: Final = 10  # TCP_LISTEN, include/net/tcp_states.h
_TENTATIVE: Final = 0x40  # IFA_F_TENTATIVE, include/uapi/linux/if_addr.h
_PORTS: Final = range(1, 65536)

# Options of subprocess that would affect nsenter(1), through which the program runs, and what to write instead.
_REFUSED: Final = {
    "shell": '"sh", "-c", "…"',
    "executable": "the path of the program as the first word",
    "user": '"runuser", "-u", "alice", "--", …',
}


class Netns:
    """A new network namespace, with lo up and nothing else.

    It has no name. In the verb netns, the process ID `pid` stands for it; in `nsenter --net=…`, the file `path` does.
    It ends with close(), or when the process that made it ends.
    """

    def __init__(self) -> None:
        """Make the namespace. OSError: EPERM, this user may not make one; ENOENT, a program is not installed.

        The sentence has the remedy.
        """
        check_namespace()
        self._holder = subprocess.Popen(
            dying_with_us("KILL", "unshare", "--net", "sh", "-ec", _HOLD),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._started: list[subprocess.Popen[str]] = []
        self._sockets: list[sockets.socket] = []
        self._closed = False
        self._namespace = -1  # a descriptor; while it is open, no other namespace gets this one's inode number
        self.pid = self._holder.pid
        self.path = Path(f"/proc/{self.pid}/ns/net")
        try:
            if self._output(self._holder.stdout, 1) != "\n":
                reason = self._output(self._holder.stderr).strip()
                raise OSError(errno.EPERM, f"cannot make a network namespace: {reason}")
            self._namespace = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _output(pipe: "IO[str] | None", size: int = -1) -> str:
        return pipe.read(size) if pipe is not None else ""

    @property
    def name(self) -> str:
        """The word for the namespace in the verb netns, so that an object can be given: `virt.set(netns=netns)`."""
        return str(self.pid)

    def command(self, *words: "str | os.PathLike[str]") -> list[str]:
        """Return the command line that runs a command in the namespace. Errors: those of run() about its words.

        >>> netns.command("ip", "link")
        ['nsenter', '--net=/proc/4711/ns/net', 'ip', 'link']
        """
        self._check_open()
        return ["nsenter", f"--net={self.path}", *_texts(words)]

    def run(
        self, *words: "str | os.PathLike[str]", check: bool = True, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in the namespace, and return its result with its output as text.

        options: keyword arguments of subprocess.run(), such as timeout. A stream that is not given is captured.
        CalledProcessError: the command fails, and check is True. FileNotFoundError: there is no such program.
        TypeError: no word, a word that is not a text, a timeout that is not a number, or an option that cannot work
        here: shell, executable or user.
        ValueError: the namespace is closed.
        TimeoutExpired: the command took longer than timeout, in seconds, and was killed. pytest shows the output of
        the command with both errors.

        >>> netns.run("cat", "/proc/net/dev").stdout.count(":")
        1
        """
        self._check_open()
        _check(words, options)
        waiting.end_of(options.get("timeout"))
        captured = {} if "capture_output" in options else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings: dict[str, Any] = {"text": True, **captured, **options}
        try:
            done: subprocess.CompletedProcess[str] = subprocess.run(self._line(words), check=False, **settings)
        except subprocess.TimeoutExpired as late:
            late.cmd = [*_texts(words)]
            streams = [text for text in (late.stdout, late.stderr) if text]
            late.add_note(b"".join(streams).decode(errors="replace"))  # subprocess leaves it encoded
            raise late.with_traceback(None) from None  # without the frames of subprocess
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, [*_texts(words)], done.stdout, done.stderr)
            error.add_note(f"{done.stdout or ''}{done.stderr or ''}")
            raise error
        return done

    def start(
        self, *words: "str | os.PathLike[str]", listening: int | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a program in the namespace. close() kills it if it is still running.

        listening: a TCP port; wait until a socket in the namespace, which did not exist before, listens on it.
        options: keyword arguments of subprocess.Popen(). The program's streams are text.
        FileNotFoundError, TypeError: as for run(). ChildProcessError: the program has ended before it listened.
        TimeoutError: it does not listen after 30 s. ValueError: there is no such port, or the namespace is closed.

        >>> netns.start("sleep", "60").poll() is None
        True
        """
        self._check_open()
        _check(words, options)
        before = set() if listening is None else self._listeners(_port(listening))
        others = [] if listening is None else self._inside()
        program: subprocess.Popen[str] = subprocess.Popen(self._line(words), **{"text": True, **options})
        self._started.append(program)
        if listening is not None:
            self._await_listener(program, os.fspath(words[0]), listening, before, others)
        return program

    def socket(self, family: int = sockets.AF_INET, kind: int = sockets.SOCK_STREAM, proto: int = 0) -> sockets.socket:
        """Return a new socket of this process in the namespace. close() closes it, too.

        family, kind, proto: those of socket.socket(). OSError: the kernel refuses. ValueError: the namespace is closed.
        TypeError: one of them is not a number.

        >>> with netns.socket() as server:
        ...     server.bind(("127.0.0.1", 80))
        """
        self._check_open()
        constants: dict[str, object] = {"family": family, "kind": kind, "proto": proto}
        for name, constant in constants.items():
            if not isinstance(constant, int):
                example = {"family": "socket.AF_INET6", "kind": "socket.SOCK_DGRAM"}.get(name, "socket.IPPROTO_ICMP")
                raise TypeError(f"{name}={constant!r} is not a number: give a constant, such as {example}")
        ours, theirs = sockets.socketpair()
        with ours, theirs:
            words = [sys.executable, "-I", "-c", _MAKE_SOCKET, *map(str, map(int, (family, kind, proto)))]
            subprocess.run(self._line(tuple(words)), stdin=theirs.fileno(), check=True)
            failure, descriptors, _, _ = sockets.recv_fds(ours, 16, 1)
        if not descriptors:
            number = int(failure)
            raise OSError(number, os.strerror(number))
        made = sockets.socket(fileno=descriptors[0])
        self._sockets.append(made)
        return made

    def _check_open(self) -> None:
        """Raise ValueError if the namespace is closed: another process may have the ID of its holder by now."""
        if self._closed:
            raise ValueError("this namespace is closed: its test, or the fixture that made it, has ended")

    def _line(self, words: "tuple[str | os.PathLike[str], ...]") -> list[str]:
        return dying_with_us("KILL", *found(*self.command(*words)))

    def _await_listener(
        self, program: "subprocess.Popen[str]", name: str, port: int, before: set[str], others: Collection[int]
    ) -> None:
        """Wait until a program listens. before, others: the listeners and the programs that were there before it."""
        end = time.monotonic() + _PATIENCE
        while not self._listeners(port) - before:
            status = program.poll()
            # A program that has ended with 0 may have left another one in the background, as a daemon does.
            if status or (status == 0 and {*self._inside()} <= {*others} and not self._listeners(port) - before):
                taken = ", on which another program listens" if before else ""
                reason = f"exit status {status} before it listened on TCP port {port}{taken}"
                raise ChildProcessError(errno.ECHILD, reason, name)
            if time.monotonic() > end:
                ended = "; it has ended with status 0, perhaps to continue in the background" if status == 0 else ""
                reason = f"does not listen on TCP port {port} after {_PATIENCE:.0f} s{ended}"
                raise TimeoutError(errno.ETIMEDOUT, reason, name)
            time.sleep(0.02)

    def _listeners(self, port: int) -> set[str]:
        """Return the inodes of the TCP sockets in the namespace that listen on a port (proc_net_tcp.rst)."""
        inodes = set()
        for table in ("tcp", "tcp6"):
            with suppress(FileNotFoundError):  # IPv6 is switched off
                rows = Path(f"/proc/{self.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
                for _, local, _, state, _, _, _, _, _, inode, *_ in map(str.split, rows):
                    if int(local.rpartition(":")[2], 16) == port and int(state, 16) == _LISTEN:
                        inodes.add(inode)
        return inodes

    def remember_neighbours(self, interface: str) -> None:
        """Let an interface in the namespace know each neighbour for an hour, without frames that check it.

        Otherwise the kernel checks neighbours with ARP requests at random times, and a seeded impairment would lose
        different frames in each run. CalledProcessError: there is no such interface.

        >>> netns.remember_neighbours("lo")
        """
        self.run("sh", "-ec", _REMEMBER, "sh", interface)

    def tentative(self) -> bool:
        """Return whether duplicate address detection of an IPv6 address in the namespace has not ended (RFC 4862)."""
        with suppress(FileNotFoundError):  # IPv6 is switched off
            lines = Path(f"/proc/{self.pid}/net/if_inet6").read_text(encoding="ascii").splitlines()
            return any(int(line.split()[4], 16) & _TENTATIVE for line in lines)
        return False

    def close(self) -> None:
        """Kill all programs in the namespace except this one, and release the namespace; idempotent."""
        self._closed = True
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        for pid in self._inside():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in (*self._started, self._holder):
            program.kill()
            program.wait()
            for pipe in (program.stdin, program.stdout, program.stderr):
                if pipe is not None:
                    with suppress(OSError):  # close() flushes, although the program no longer reads
                        pipe.close()
        self._started.clear()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def _inside(self) -> list[int]:
        """Return the process IDs of the programs in the namespace, except this process and the holder.

        There are none without a namespace of its own: the holder may still be in that of its parent.
        """
        if self._namespace < 0:
            return []
        pids = []
        own = os.fstat(self._namespace).st_ino
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == own and int(name) not in (os.getpid(), self.pid):
                    pids.append(int(name))
        return pids

    def __enter__(self: N) -> N:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Netns {self.pid}>"


def _check(words: "tuple[str | os.PathLike[str], ...]", options: Mapping[str, Any]) -> None:
    """Raise the errors that subprocess would raise without nsenter(1), which reports them by its exit status."""
    for name, instead in _REFUSED.items():
        if options.get(name) not in (None, False):
            raise TypeError(f"{name}={options[name]!r} does not work in a namespace: give {instead}")
    if not words:
        raise TypeError('no command is given: give its words, as in "ip", "link"')
    name, *_ = _texts(words)
    environment = os.environ if options.get("env") is None else options["env"]
    place = os.path.join(options.get("cwd") or "", name) if "/" in name else name
    if shutil.which(place, path=environment.get("PATH", os.defpath)) is None:
        number = errno.EACCES if "/" in name and os.path.exists(place) else errno.ENOENT
        missing = OSError(number, os.strerror(number), name)
        if len(one_by_one := name.split()) > 1:
            missing.add_note("give the words one by one: " + ", ".join(f'"{word}"' for word in one_by_one))
        raise missing


def _port(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"listening is the number of a TCP port, such as 5201, not {number!r}")
    if number not in _PORTS:
        raise ValueError(f"listening={number} is not a TCP port: ports are {_PORTS[0]} to {_PORTS[-1]}")
    return number


def _texts(words: "Iterable[str | os.PathLike[str]]") -> list[str]:
    for word in words:
        if isinstance(word, list | tuple):
            one_by_one = ", ".join(f'"{part}"' for part in word)
            raise TypeError(
                f"{word!r} is not a word: give the words one by one: {one_by_one}; or *words for a variable"
            )
        if not isinstance(word, str | os.PathLike):
            raise TypeError(f'the word {word!r} is not a text: write "{word}"')
    return [os.fspath(word) for word in words]
