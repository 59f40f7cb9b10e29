"""A cable compared with a kernel bridge between veths and with vde_switch between two taps.

TCP, UDP datagrams that are sent together, and frames of the smallest size are measured. For these frames, the sender
has one CPU and the program that carries them has the other. For TCP and UDP, whose two ends need CPUs as well, the
scheduler places all programs freely.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from arena import BENCH, RUN, Server
from lab import FIRST, LAST, QUEUE, SUBJECT, Lab, Rate, entering, ip, namespaces, program, received, run, settle, until

BRIDGE, VDE = "kernel bridge, veths", "vde_switch"
ADDRESS = "10.79.0.1", "10.79.0.2"
SECONDS = 1.0
BLAST_SECONDS = 0.5
PORT = 4000


@dataclass(frozen=True)
class Carried:
    """A link between two namespaces: their names and the interface in each.

    pid: the process that carries the frames, 0 if the kernel does.
    """

    near: str
    near_if: str
    far: str
    far_if: str
    pid: int

    def bits(self) -> float:
        """Return the TCP payload carried, in Gbit/s."""
        _pin(self.pid, [FIRST, LAST])
        return Rate(self.near, self.far, ADDRESS[1]).tcp(SECONDS) / 1e9

    def datagrams(self) -> float:
        """Return the UDP payload received, in Gbit/s, of datagrams that are sent and received many at a time."""
        _pin(self.pid, [FIRST, LAST])
        program_of = [sys.executable, BENCH / "datagrams.py"]
        command = [*entering(self.far), *program_of, "receive", PORT, SECONDS]
        with program(*command, stdout=subprocess.PIPE, text=True) as receiver:
            assert receiver.stdout
            assert receiver.stdout.readline() == "bound\n"
            run(*entering(self.near), *program_of, "send", ADDRESS[1], PORT, SECONDS + 0.5)
            return float(receiver.stdout.readline()) / 1e9

    def frames(self, lab: Lab) -> float:
        """Return the number of smallest frames that are delivered per second."""
        _pin(self.pid, [LAST])
        before = received(self.far, self.far_if)
        _, seconds = lab.blast(self.near_if, BLAST_SECONDS, inside=self.near)
        return (received(self.far, self.far_if) - before) / seconds


def measure(lab: Lab) -> None:
    """Measure and print the part "cable"."""
    with contextlib.ExitStack() as stack:
        carriers = {
            SUBJECT: stack.enter_context(cabled(lab)),
            BRIDGE: stack.enter_context(_bridged()),
            VDE: stack.enter_context(_switched()),
        }
        tcp = lab.rounds_of({name: carried.bits for name, carried in carriers.items()})
        lab.compare("cable: TCP by iperf3, one connection", "Gbit/s", tcp, {BRIDGE: 0.9, VDE: 10})
        datagrams = lab.rounds_of({name: carried.datagrams for name, carried in carriers.items()})
        lab.compare("cable: UDP datagrams sent together", "Gbit/s", datagrams, {})
        frames = lab.rounds_of({name: _framed(carried, lab) for name, carried in carriers.items()})
        lab.compare("cable: 60-byte frames delivered", "frames/s", frames, {VDE: 2})


def _framed(carried: Carried, lab: Lab) -> Callable[[], float]:
    return lambda: carried.frames(lab)


@contextlib.contextmanager
def cabled(lab: Lab) -> Iterator[Carried]:
    """Connect virt1 and virt2 by a cable, with their taps in the namespaces a and b."""
    with namespaces("a", "b"):
        for unit, name, address in (1, "a", ADDRESS[0]), (2, "b", ADDRESS[1]):
            lab.ctl(f"create {unit} up", f"virt{unit} netns {name}")
            settle(name, f"tap{unit}", address)
        lab.ctl("cable 1 2")
        try:
            yield Carried("a", "tap1", "b", "tap2", lab.server.pid)
        finally:
            lab.ctl("uncable 1 2", "destroy 1", "destroy 2")


@contextlib.contextmanager
def _bridged() -> Iterator[Carried]:
    with namespaces("c", "d"):
        ip("link add kbridge type bridge")
        ip("link set kbridge addrgenmode none up")
        for name, address in ("c", ADDRESS[0]), ("d", ADDRESS[1]):
            ip(f"link add port{name} type veth peer name veth{name} netns {name}")
            ip(f"link set port{name} addrgenmode none master kbridge up")
            settle(name, f"veth{name}", address)
        try:
            yield Carried("c", "vethc", "d", "vethd", 0)
        finally:
            ip("link del kbridge")


@contextlib.contextmanager
def _switched() -> Iterator[Carried]:
    options = ["-s", RUN / "vde", "-M", RUN / "vde.mgmt", "-t", "vdee", "-t", "vdef"]
    silent = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with namespaces("e", "f"), program("vde_switch", *options, **silent) as switch:
        until("vde_switch", (RUN / "vde.mgmt").exists)
        for name, address in ("e", ADDRESS[0]), ("f", ADDRESS[1]):
            ip(f"link set vde{name} txqueuelen {QUEUE} netns {name}")
            settle(name, f"vde{name}", address)
        yield Carried("e", "vdee", "f", "vdef", switch.pid)


def _pin(pid: int, cpus: list[int]) -> None:
    if pid:
        Server(RUN, pid).pin(cpus)
