"""The shell in which a reader follows the tutorial: root's with a mount at /mnt/virt, or that of `virtfs shell`.

It runs in namespaces that end with it.
"""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness import children
from harness.users import HIS_VIRTFS, RANGE, as_user
from harness.waiting import PATIENCE

from .markdown import ROOT, Block

_DONE = "-- done --"  # printed by the shell after each step

# All processes that are started in these namespaces end with unshare(1).
_NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
_BEGIN = f"""\
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/virt /mnt/home
export HOME=/mnt/home
mount -t tmpfs tmpfs /run
ip link set lo up
"{sys.executable}" -m virtfs mount /mnt/virt
virtfs() {{ "{sys.executable}" -m virtfs "$@"; }}
set +e
cd /mnt/virt
"""
# Unmount, as Ctrl-C does in `make run`. No interface but lo may remain.
_END = f"""\
"{sys.executable}" -m virtfs umount /mnt/virt
ip -brief link | cut -d" " -f1
"""

_MASKS = (
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    # The hexadecimal dump of an ARP request: its first two lines contain the sender's MAC address, also as characters.
    (r"^(000000[01]0: (?:[0-9a-f]{4} ){3})(?:[0-9a-f]{4} ){3}(.*?)  .*$", r"\1MAC \2"),
    # A configured delay is compared by its tens of milliseconds. A round trip is never shorter than the delay.
    (r"\btime=[23][0-9](?:\.[0-9]+)? ms", "time=20+ ms"),
    (r"\btime=(?:[4-9][0-9]|[0-9]{3,})(?:\.[0-9]+)? ms", "time=40+ ms"),
    (r"\btime=[0-9.]+ ms", "time=T ms"),
    (r"\btime [0-9]+ms", "time T"),
    (r"= [0-9.]+/[0-9.]+/[0-9.]+/[0-9.]+ ms", "= T"),
    (r"\b[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d\b", "DATE"),
    (r"\bid \d+, seq", "id N, seq"),
    (r" 0\.00-1\.\d\d +sec.*/sec +\d+ ", " 0.00-1.00 sec RATE "),  # iperf3
    (r"MAC (tap\d+) \d+ flags=0", r"MAC \1 AGE flags=0"),  # brconfig's layout: seconds until the address expires
    (r"^/\S+  (\d+ interfaces?, )", r"MOUNT  \1"),  # virtfs ls
    (r"^( virt\d+ +\S+ +\S+ +\d+) +[0-9.]+ +[0-9.]+ +\d+ ", r"\1 RATES "),
    (r"^(?:/\S*/)?bash: line \d+: (?=echo)", "bash: "),
    (r"^bash: (?=echo)", "bash: "),
)


def masked(text: str) -> list[str]:
    """Return the lines that are not blank, with the parts that differ between runs masked."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    for pattern, instead in _MASKS:
        lines = [re.sub(pattern, instead, line) for line in lines]
    return lines


class Tour:
    """A shell that runs the steps of a tour. pytest's time limit ends a command that hangs."""

    def __init__(self, shell: subprocess.Popen[Any]) -> None:
        assert shell.stdin is not None
        assert shell.stdout is not None
        self._shell = shell
        self._in = shell.stdin
        self._out = shell.stdout.fileno()

    def leave(self) -> int:
        """End the shell. Returns its exit status."""
        self._in.write(b"exit 0\n")
        self._in.close()
        return self._shell.wait(PATIENCE)

    def run(self, commands: str, lines: int) -> str:
        """Run commands. Returns the output of the commands and of background programs, once it has `lines` lines."""
        self._in.write(f'{commands}\necho "{_DONE}"\n'.encode())
        self._in.flush()
        printed = ""
        end = time.monotonic() + PATIENCE
        while _DONE not in printed or len(masked(printed.replace(_DONE, ""))) < lines:
            ready, _, _ = select.select([self._out], [], [], max(0, end - time.monotonic()))
            if not ready:
                break  # the caller's comparison shows which lines are missing
            more = os.read(self._out, 65536)
            assert more, f"the shell has ended: {printed}"
            printed += more.decode()
        return printed.replace(f"{_DONE}\n", "")


def prints_what_it_says(tour: Tour, step: Block) -> None:
    """Run a step, and compare its masked lines with the expected ones.

    The order is ignored, because background programs print at any time.
    """
    expected = masked(step.output)
    printed = tour.run(step.text, len(expected))
    assert sorted(undelayed(masked(printed), expected)) == sorted(expected), printed


def undelayed(lines: list[str], expected: list[str]) -> list[str]:
    """Return the masked lines, with delays that are longer than expected replaced, since a busy machine is slow.

    If no delay is expected, all delays are masked. If 20 ms are, delays of 40 ms and more are shown as those of 20.
    """
    if any("time=40+ ms" in line for line in expected):
        return lines
    if any("time=20+ ms" in line for line in expected):
        return [line.replace("time=40+ ms", "time=20+ ms") for line in lines]
    return [re.sub(r"\btime=[24]0\+ ms", "time=T ms", line) for line in lines]


@contextmanager
def touring() -> Iterator[Tour]:
    """Yield a root shell, in a mount at /mnt/virt."""
    with _shell([*_NAMESPACES, "bash", "--norc", "-s"]) as tour:
        said = tour.run(_BEGIN, 0)
        assert said.strip() == "", said
        yield tour
        left = tour.run(_END, 0)
        assert left == "lo\n", left


@contextmanager
def touring_without_root(before: str = "", ids: str = RANGE) -> Iterator[Tour]:
    """Yield the shell that `virtfs shell` runs for an ordinary user. before, ids: as for as_user()."""
    with _shell([*as_user(ids, before), *HIS_VIRTFS, "shell", "bash", "--norc", "-s"]) as tour:
        tour.run(f'virtfs() {{ {" ".join(HIS_VIRTFS)} "$@"; }}', 0)
        yield tour
        assert tour.leave() == 0


@contextmanager
def _shell(command: list[str]) -> Iterator[Tour]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "LANG": "C"}
    shell = children.start(
        command, text=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    try:
        yield Tour(shell)
    finally:
        shell.kill()
        shell.wait()
