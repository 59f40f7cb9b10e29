"""Thousands of interfaces: time, memory, descriptors. As root: python bench/scale.py [--quick] [PART …].

Each part starts a server of its own. Times are compared with what ip(8) takes for the same taps: `ip -batch` creates
and deletes persistent taps, one command each. The processor time of the server is printed too, because it does not
depend on what else the machine does.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from arena import BENCH, RUN, Others, Server, cpu_seconds, enter, fail, serve
from results import Results

MANY = 1000  # interfaces that are created, measured and left idle
MOST = 4000  # interfaces that are destroyed
PORTS = 300  # interfaces that become ports of one bridge
IDLE_SECONDS = 10
PAGE = os.sysconf("SC_PAGE_SIZE")
MOUNT: list[str | Path] = [sys.executable, "-m", "virtfs", "mount", "-f"]


class Report:
    """The results of a run, and the goals that it missed."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.missed: list[str] = []

    def line(self, what: str, figure: float, unit: str, goal: float = 0, note: str = "") -> None:
        """Print one result. goal: the highest figure that is good enough, or 0 if there is no goal."""
        self.results.keep(what, "virtfs", unit, [figure], most=goal or None)
        row = f"  {what:44}{figure:10.3g} {unit:4}{note}"
        if goal:
            row += f"  goal: {goal:g}"
            if figure > goal:
                row += "  MISSED"
                self.missed.append(f"{what}: {figure:.3g} {unit}, the goal is {goal:g}")
        print(row, flush=True)


@dataclass(frozen=True)
class Took:
    """What a step took: seconds, and processor seconds of the server."""

    seconds: float
    server: float


def timed(pid: int, step: Callable[[], object]) -> Took:
    """Run a step, and return what it took."""
    began, used = time.monotonic(), cpu_seconds(pid)
    step()
    return Took(time.monotonic() - began, cpu_seconds(pid) - used)


def write(server: Server, verb: str, count: int) -> None:
    """Write a line for each of `count` interfaces to ctl, with one write(2)."""
    write_lines(server, [f"{verb} {unit}" for unit in range(count)])


def write_lines(server: Server, lines: list[str]) -> None:
    """Write lines to ctl, with one write(2)."""
    data = "".join(f"{line}\n" for line in lines).encode()
    with open(server.directory / "ctl", "wb", buffering=0) as ctl:
        if ctl.write(data) != len(data):
            fail(f"ctl has taken only part of {len(lines)} lines")


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def descriptors(pid: int) -> int:
    """Return the number of descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def batch(lines: list[str]) -> float:
    """Run commands of ip(8) in one process, and return the seconds it took."""
    script = RUN / "batch"
    script.write_text("".join(f"{line}\n" for line in lines))
    began = time.monotonic()
    subprocess.run(["ip", "-batch", script], check=True)
    return time.monotonic() - began


@contextlib.contextmanager
def virtfs() -> Iterator[Server]:
    """Run a server with a new mount point."""
    with serve("virtfs", MOUNT, "ctl") as server:
        yield server
    (RUN / "virtfs").rmdir()


# -- the parts ----------------------------------------------------------------------------------------------


def ready(report: Report, rounds: int) -> None:
    """Measure the time until `virtfs mount` returns, which is when the mount answers."""
    directory = RUN / "ready"
    directory.mkdir()
    took, imports = [], []
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "virtfs", "mount", directory], check=True, cwd=BENCH.parent)
        took.append(time.monotonic() - began)
        subprocess.run([sys.executable, "-m", "virtfs", "umount", directory], check=True, cwd=BENCH.parent)
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import trio, pyfuse3"], check=True)
        imports.append(time.monotonic() - began)
    directory.rmdir()
    print("\nstart")
    report.line("until the mount answers, lowest", min(took), "s", 0.25)
    report.line("until the mount answers, median", statistics.median(took), "s")
    report.line("the same, without importing trio and pyfuse3", min(took) - min(imports), "s")


def create(report: Report, rounds: int) -> None:
    """Measure the creation of MANY interfaces, and the memory and descriptors that they take."""
    print(f"\n{MANY} interfaces")
    with virtfs() as server:
        write(server, "create", 10)  # modules that the first interface loads must not count
        write(server, "destroy", 10)
        memory, files = resident(server.pid), descriptors(server.pid)
        took = timed(server.pid, lambda: write(server, "create", MANY))
        report.line("created by one write", took.seconds, "s", 3, f"  server {took.server:.2f} s")
        rival = batch([f"tuntap add dev x{unit} mode tap" for unit in range(MANY)])
        report.line("created by ip -batch", rival, "s")
        report.line("memory of an interface", (resident(server.pid) - memory) / MANY / 1024, "KiB", 60)
        report.line("descriptors of an interface", (descriptors(server.pid) - files) / MANY, "", 1)
        idle = timed(server.pid, lambda: time.sleep(IDLE_SECONDS))
        report.line(f"processor time in {IDLE_SECONDS} idle s", idle.server, "s", 0.05)
        took = timed(server.pid, lambda: write(server, "destroy", MANY))
        report.line("destroyed by one write", took.seconds, "s", 0, f"  server {took.server:.2f} s")
        rival = batch([f"link del x{unit}" for unit in range(MANY)])
        report.line("deleted by ip -batch", rival, "s")


def ports(report: Report, rounds: int) -> None:
    """Measure the creation of PORTS interfaces that become ports of one bridge."""
    print(f"\n{PORTS} ports of a bridge")
    with virtfs() as server:
        write_lines(server, ["create bridge0 up"])
        took = timed(server.pid, lambda: write_lines(server, [f"create {n} up bridge bridge0" for n in range(PORTS)]))
        report.line("created by one write", took.seconds, "s", 3, f"  server {took.server:.2f} s")
    steps = ("tuntap add dev x{} mode tap", "link set x{} up", "link set x{} master other")
    rival = batch(["link add other type bridge", *(step.format(n) for n in range(PORTS) for step in steps)])
    report.line("created by ip -batch", rival, "s")
    batch([f"link del {name}" for name in ("other", *(f"x{n}" for n in range(PORTS)))])


def destroy(report: Report, rounds: int) -> None:
    """Measure the destruction of MOST interfaces by one write, and by the end of the mount."""
    print(f"\n{MOST} interfaces")
    with virtfs() as server:
        write(server, "create", MOST)
        took = timed(server.pid, lambda: write(server, "destroy", MOST))
        report.line("destroyed by one write", took.seconds, "s", 1, f"  server {took.server:.2f} s")
        write(server, "create", MOST)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        report.line("destroyed at the end of the mount", time.monotonic() - began, "s", 1)


PARTS = {"ready": ready, "create": create, "ports": ports, "destroy": destroy}


def main() -> None:
    parser = argparse.ArgumentParser(description="measure virtfs with thousands of interfaces")
    parser.add_argument("parts", metavar="PART", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="two rounds instead of ten")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    enter()
    report, others = Report(Results(options.json)), Others()
    for name, measure in PARTS.items():
        if name in (options.parts or PARTS):
            measure(report, 2 if options.quick else 10)
    print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    report.results.save()
    print("\nmissed goals:" if report.missed else "\nall goals are reached")
    for line in report.missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
