"""How one user's worst disturbs another user. As root: python bench/fairness.py [--quick] [ATTACK ...].

For each attack by one user, prints what another user gets meanwhile: the rate of a ping-pong on the user's own
interface, as a share of the rate without an attack, and the time of `ls` and of `cat mtu` in milliseconds. Quiet rounds
and rounds under attack alternate, since the machine may be noisy. Each figure is a median.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from arena import Server, build, enter, fail, serve
from results import TIMES, Results

VICTIM, ATTACKER = 4001, 4002
ADDRESS = "10.77.3.1"
GOAL_RATE, GOAL_MS = 0.5, 20.0
INTERFACES = 40  # of the mount; the attacker owns 8 of them
LOOKS = 10  # how often `ls` and `cat mtu` are timed in each round

# Prints the milliseconds that `ls` and `cat` take.
_LOOK = """
import os, sys, time
d, n = sys.argv[1:]
for _ in range(int(n)):
    t = time.monotonic(); os.stat(d); os.listdir(d)
    u = time.monotonic(); f = os.open(f"{d}/virt3/mtu", 0)
    while os.read(f, 1 << 17): pass
    os.close(f); v = time.monotonic()
    print(1e3 * (u - t), 1e3 * (v - u))
    time.sleep(0.01)
"""
_LOOP = "import os, sys; n = int(sys.argv[1]); d = sys.argv[2]\n"
_FORK = _LOOP + "for i in range(n - 1):\n    if not os.fork(): break\nelse: i = n - 1\n"

# Each attack is a Python program. Its arguments are a number of processes and the mount point.
ATTACKS: dict[str, tuple[int, str]] = {
    "small frames": (8, _FORK + "f = os.open(f'{d}/virt{10 + i}/frame', 1)\nwhile True: os.write(f, bytes(60))"),
    "frames of 64 KiB": (
        8,
        _FORK + "f = os.open(f'{d}/virt{10 + i}/frame', 1)\nwhile True: os.write(f, bytes(65000))",
    ),
    "newlines into hex": (
        30,
        _FORK + "f = os.open(f'{d}/virt{10 + i % 8}/hex', 1)\nwhile True: os.write(f, b'\\n' * (1 << 20))",
    ),
    "frames into hex": (
        8,
        _FORK + "f = os.open(f'{d}/virt{10 + i}/hex', 1)\nt = (b'ff' * 60 + b'\\n') * 8600\nwhile True: os.write(f, t)",
    ),
    "captures into inject": (
        8,
        _FORK
        + "import struct\nf = os.open(f'{d}/virt{10 + i}/inject', 1)\n"
        + "os.write(f, struct.pack('<IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))\n"
        + "t = (struct.pack('<IIII', 0, 0, 60, 60) + bytes(60)) * 13000\nwhile True: os.write(f, t)",
    ),
    "polls of status.json": (
        20,
        _FORK
        + "import select\nf = os.open(f'{d}/status.json', 0); os.read(f, 1 << 20)\np = select.poll(); p.register(f)\n"
        + "while True: p.poll(0)",
    ),
    "polls of metrics": (
        20,
        _FORK
        + "import select\nf = os.open(f'{d}/metrics', 0); os.read(f, 1 << 20)\np = select.poll(); p.register(f)\n"
        + "while True: p.poll(0)",
    ),
    "reads of status.json": (
        8,
        _FORK + "f = os.open(f'{d}/status.json', 0)\nwhile True: os.pread(f, 1 << 16, 0)",
    ),
    "opens and closes": (8, _FORK + "while True: os.close(os.open(f'{d}/virt{10 + i}/frame', 1))"),
    "opens of texts": (8, _FORK + "while True: os.close(os.open(f'{d}/virt{10 + i}/mtu', 0))"),
    "long scripts": (
        8,
        _FORK
        + "f = os.open(f'{d}/virt{10 + i}/ctl', 1)\nt = b'strict\\n-strict\\n' * 60000\n"
        + "while True: os.write(f, t)",
    ),
    "lines of 64 KiB": (
        8,
        _FORK
        + "f = os.open(f'{d}/virt{10 + i}/ctl', 1)\nt = b'impair loss 1 ' * 255 + b'a ' * 30000 + b'\\n'\n"
        + "while True:\n    try: os.write(f, t)\n    except OSError: pass",
    ),
    "waiting readers": (
        4,
        _FORK
        + "import threading\nthreading.stack_size(65536)\n"
        + "def wait(f):\n    while True: os.read(f, 1 << 16)\n"
        + "for k in range(500): threading.Thread(target=wait, args=[os.open(f'{d}/events', 0)], daemon=True).start()\n"
        + "while True: os.close(os.open(f'{d}/virt{10 + i}/frame', 1))",
    ),
    "waiting readers of one frame": (
        1,
        _FORK
        + "import threading\nthreading.stack_size(65536)\n"
        + "def wait(f):\n    while True: os.read(f, 1 << 16)\n"
        + "for k in range(2000):\n    f = os.open(f'{d}/virt10/frame', 0)\n"
        + "    threading.Thread(target=wait, args=[f], daemon=True).start()\n"
        + "f = os.open(f'{d}/virt11/frame', 1)\nwhile True: os.write(f, b'\\xff' * 60)",
    ),
}


@dataclass
class Figures:
    """The figures of one kind of round."""

    rates: list[float]
    ls: list[float]
    cat: list[float]


@dataclass(frozen=True)
class Lab:
    """The mount, and the program that sends and receives frames."""

    server: Server
    client: Path

    def rate(self, seconds: float) -> float:
        """Return the round trips per second that the victim makes on its interface."""
        command = [self.client, "roundtrip", self.server.directory / "virt3/frame", str(seconds), ADDRESS, "tap3"]
        done = subprocess.run(as_user(VICTIM, command), stdout=subprocess.PIPE, text=True, timeout=60)
        if done.returncode:
            fail(f"the victim's program has ended with status {done.returncode}")
        frames, nanoseconds = map(int, done.stdout.split())
        return frames / nanoseconds * 1e9

    def looks(self, figures: Figures) -> None:
        """Time the system calls of `ls` and of `cat mtu`, as the victim.

        The start of a program would take longer than these calls, and depends on the machine alone.
        """
        command = [sys.executable, "-c", _LOOK, str(self.server.directory), str(LOOKS)]
        done = subprocess.run(as_user(VICTIM, command), stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        for line in done.stdout.splitlines():
            ls, cat = map(float, line.split())
            figures.ls.append(ls)
            figures.cat.append(cat)

    def round(self, figures: Figures, seconds: float) -> None:
        figures.rates.append(self.rate(seconds))
        self.looks(figures)


def as_user(uid: int, command: object) -> list[str]:
    """Return the words that run a command as another user."""
    words = [str(word) for word in command]  # type: ignore[attr-defined]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *words]


@contextlib.contextmanager
def attack(name: str, directory: Path) -> Iterator[None]:
    """Run an attack in a process group of its own, and kill it at the end."""
    processes, program = ATTACKS[name]
    words = as_user(ATTACKER, [sys.executable, "-c", program, processes, directory])
    with subprocess.Popen(words, process_group=0) as process:
        try:
            time.sleep(0.5)
            if process.poll() is not None:
                fail(f"the attack {name!r} has ended")
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def mounted() -> Iterator[Server]:
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        lines = [f"create 3 up inet {ADDRESS}/24 owner {VICTIM}"]
        for unit in range(10, 10 + INTERFACES):
            lines.append(f"create {unit} up mtu 65521 exclusive none owner {ATTACKER if unit < 18 else 0}")
        # Frames that the attacker writes to virt11 arrive at virt10.
        lines += ["create bridge0 up", "virt10 bridge bridge0", "virt11 bridge bridge0"]
        (server.directory / "ctl").write_text("\n".join(lines) + "\n")
        yield server


def measure(lab: Lab, name: str, rounds: int, seconds: float) -> tuple[float, float, float]:
    """Return the rate as a fraction of the rate alone, and the times of `ls` and `cat mtu` in ms."""
    quiet, busy = Figures([], [], []), Figures([], [], [])
    for _ in range(rounds):
        lab.round(quiet, seconds)
        with attack(name, lab.server.directory):
            lab.round(busy, seconds)
    shares = [under / alone for under, alone in zip(busy.rates, quiet.rates, strict=True)]
    return statistics.median(shares), statistics.median(busy.ls), statistics.median(busy.cat)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure how one user disturbs another")
    parser.add_argument("attacks", metavar="ATTACK", nargs="*", help="; ".join(ATTACKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.attacks) - set(ATTACKS):
        parser.error(f"unknown attack {', '.join(sorted(unknown))}")
    enter()
    rounds, seconds = (1, 0.5) if options.quick else (5, 0.5)
    missed, results = [], Results(options.json)
    client = build("client")
    with mounted() as server:
        os.chmod(server.directory.parent, 0o755)
        os.chmod(client, 0o755)
        lab = Lab(server, client)
        print(f"{'attack by another user':30}{'rate left':>10}{'ls, ms':>9}{'cat, ms':>9}")
        for name in options.attacks or ATTACKS:
            share, ls, cat = measure(lab, name, rounds, seconds)
            results.keep(name, "rate left", TIMES, [share], against="no attack", least=GOAL_RATE)
            results.keep(name, "ls", "ms", [ls], most=GOAL_MS)
            results.keep(name, "cat", "ms", [cat], most=GOAL_MS)
            reached = share >= GOAL_RATE and ls <= GOAL_MS and cat <= GOAL_MS
            print(f"{name:30}{share:10.2f}{ls:9.1f}{cat:9.1f}{'' if reached else '  MISSED'}", flush=True)
            if not reached:
                missed.append(name)
    results.save()
    print(f"goals: {GOAL_RATE} of the rate, {GOAL_MS:.0f} ms")
    print(f"missed: {', '.join(missed)}" if missed else "all goals are reached")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
