"""Namespaces in which a benchmark runs, and the servers that it measures.

`enter` moves the program into new network, mount and pid namespaces, so nothing outlives it. When the first process of
a pid namespace ends, the kernel kills all others (pid_namespaces(7)). Taps and mounts vanish with the last of them.
Files are on a tmpfs over /run, which only processes in the mount namespace can see.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

BENCH = Path(__file__).resolve().parent
RUN = Path("/run")
READY_SECONDS = 20
TICK = os.sysconf("SC_CLK_TCK")
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
_INSIDE = "VIRTFS_BENCH_INSIDE"


# -- entering and leaving -----------------------------------------------------------------------------------


def enter() -> None:
    """Make sure that the program runs in namespaces of its own.

    Outside, run the program again in new namespaces and exit with its status. Inside, mount the tmpfs and return.
    """
    if os.environ.get(_INSIDE):
        subprocess.run(["mount", "-t", "tmpfs", "bench", RUN], check=True)
        return
    if os.geteuid():
        raise SystemExit("bench: run this as root: it creates taps and namespaces")
    say_load()
    raise SystemExit(_supervise())


def _supervise() -> int:
    """Run this program in new namespaces and return its exit status. If this process dies, so does the one inside."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    command = ["setpriv", "--pdeathsig", "KILL", "--", *unshare, sys.executable, *sys.argv]
    # With bytecode files, as users have them. Otherwise each start of a program would compile all modules.
    with subprocess.Popen(command, env={**os.environ, _INSIDE: "1", "PYTHONDONTWRITEBYTECODE": ""}) as inside:
        try:
            return inside.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            inside.kill()


def say_load() -> None:
    """Print the load of the machine: results are of little value while other programs use the CPUs."""
    before, start = _cpu_seconds(), time.monotonic()
    select.select([], [], [], 1)
    elapsed = time.monotonic() - start
    busy = {process: (seconds - before.get(process, seconds)) / elapsed for process, seconds in _cpu_seconds().items()}
    others = sorted(((share, *process) for process, share in busy.items() if share >= 0.02), reverse=True)
    average, running = Path("/proc/loadavg").read_text().rsplit(" ", 2)[:2]
    print(f"load average {average}; running or runnable {running}; {os.cpu_count()} CPUs")
    for share, pid, name in others[:5]:
        print(f"  busy: {name} (pid {pid}) {share:.0%} of a CPU")
    quiet = not others
    print("the machine is quiet" if quiet else "THE MACHINE IS LOADED: take the figures as indicative only")


class Others:
    """A meter of the CPU time that other programs use, from its creation on. Works only inside the namespaces."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy_seconds(), sum(_cpu_seconds().values())
        self._reaped = _reaped_seconds()

    def share(self) -> float:
        """Return the CPUs used by other programs, 1.0 for one whole CPU. The servers must still be running."""
        own = sum(_cpu_seconds().values()) - self._own + _reaped_seconds() - self._reaped
        return max(0.0, (_busy_seconds() - self._busy - own) / (time.monotonic() - self._start))


def _busy_seconds() -> float:
    """Return the busy seconds of all CPUs: the first line of /proc/stat without idle and iowait.

    Inside a pid namespace, too, that line counts all processes of the machine.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def _reaped_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _cpu_seconds() -> dict[tuple[int, str], float]:
    used = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            used[int(entry.parent.name), _stat_name(entry)] = cpu_seconds(int(entry.parent.name))
    return used


def _stat_name(entry: Path) -> str:
    return entry.read_text().partition("(")[2].rpartition(")")[0]


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads of a process so far (proc(5): fields 14 and 15, in ticks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


# -- programs under test -------------------------------------------------------------------------------------


def build(source: str, *packages: str) -> Path:
    """Compile bench/`source`.c with the pkg-config packages `packages`. Return the program, which is on the tmpfs."""
    program = RUN / source
    flags = []
    if packages:
        asked = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *packages], check=True, stdout=subprocess.PIPE, text=True
        )
        flags = asked.stdout.split()
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-o", program, BENCH / f"{source}.c", *flags, "-pthread"],
        check=True,
    )
    return program


def make_tap(ifname: str, address: str, queue: int) -> None:
    """Create a persistent tap for a rival to attach to. It is up, and sends no IPv6 packets on its own."""
    for command in (
        f"tuntap add dev {ifname} mode tap",
        f"link set {ifname} txqueuelen {queue} addrgenmode none up",
        f"addr add {address}/24 dev {ifname}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def attach(ifname: str) -> int:
    """Return a non-blocking descriptor of an existing tap."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", ifname.encode(), IFF_TAP | IFF_NO_PI))
    return tap


@dataclass(frozen=True)
class Server:
    """A running file server: its mount point and process."""

    directory: Path
    pid: int

    def pin(self, cpus: Iterable[int]) -> None:
        """Restrict all threads of the server to `cpus`."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            os.sched_setaffinity(int(thread), cpus)


@contextlib.contextmanager
def serve(name: str, command: list[str | Path], ready: str) -> Iterator[Server]:
    """Run `command` with a new mount point as its last argument, and end it with SIGTERM.

    Yield the server when it has mounted and the file `ready` exists in its mount.
    """
    directory = RUN / name
    directory.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{BENCH.parent}:{BENCH}"}
    with subprocess.Popen([*command, directory], env=environment) as process:
        try:
            _await_mount(directory, process)
            # In a child process with a time limit, because a stat in a hung mount never returns.
            subprocess.run(["test", "-e", directory / ready], check=True, timeout=READY_SECONDS)
            yield Server(directory, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                print(f"{name} did not end within 10 s of SIGTERM, so it is killed", file=sys.stderr)
                process.kill()


def _await_mount(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until `directory` is a mount point. Poll reports a change of mountinfo as POLLPRI (proc(5)).

    Exit with an error if the server ends, or mounts nothing in READY_SECONDS.
    """
    deadline = time.monotonic() + READY_SECONDS
    poll = select.poll()
    with open("/proc/self/mountinfo") as mounts, open(os.pidfd_open(process.pid)) as ended:
        poll.register(mounts, select.POLLPRI)
        poll.register(ended, select.POLLIN)
        while f" {directory} " not in mounts.read():
            left = deadline - time.monotonic()
            if process.poll() is not None:
                fail(f"{process.args!r} ended with status {process.returncode} before it was mounted")
            if left <= 0:
                fail(f"{process.args!r} has not mounted anything in {READY_SECONDS} s")
            poll.poll(left * 1000)
            mounts.seek(0)


def fail(why: str) -> NoReturn:
    raise SystemExit(f"bench: {why}")
