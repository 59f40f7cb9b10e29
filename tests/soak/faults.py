"""Faults, and changes by programs outside of virtfs."""

import os
import resource

from harness import traffic
from harness.waiting import until

from .lab import Lab
from .ledger import Ledger, incoming
from .model import BRIDGE, DISK, STATE, UNITS, Mismatch, Unit


def full_disk(lab: Lab) -> None:
    """Fill the disk of the state file, change something, and make room again.

    The change may be refused; then it has had no effect.
    """
    if (found := lab.pick()) is None:
        return
    number, unit = found
    lab.users[0].call(traffic.fill_disk, f"{DISK}/full")
    try:
        verb = f"description disk {lab.random.randrange(100)}"
        try:
            lab.say(f"virt{number}/ctl", verb)
        except OSError:
            pass
        else:
            unit.apply(verb)
    finally:
        lab.users[0].call(os.unlink, f"{DISK}/full")
    until(lab.saved, "the state is saved once there is room")
    forgive(lab, "state file", "No space left")


def out_of_descriptors(lab: Lab) -> None:
    """Let the server run out of descriptors, and create an interface, a cable and a capture meanwhile."""
    pid = lab.mount.server.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
    free = next((number for number in range(1, UNITS + 1) if number not in lab.units), None)
    refused = 0
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + lab.random.randrange(4), before[1]))
    try:
        lines = [f"create {free} up"] if free else []
        for line in lines:
            try:
                lab.say("ctl", line)
            except OSError:
                refused += 1
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    if free and not refused:
        lab.units[free] = Unit()
        lab.units[free].apply("up")
        lab.plug_in(free, lab.units[free])
    forgive(lab, "Too many open files", "descriptors")


def forgive(lab: Lab, *parts: str) -> None:
    """Remove expected complaints from the server's log."""
    lab.mount.log[:] = [line for line in lab.mount.log if not any(part in line for part in parts)]


def by_ip(lab: Lab) -> None:
    """Change a tap with ip(8)."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    verb = lab.random.choice(["up", "down", "mtu 1300", "mtu 1500", "txqueuelen 77", "promisc on", "promisc off"])
    if verb.startswith("txqueuelen"):
        lab.drain(number)  # the kernel drops frames without counting them if the queue gets shorter
    lab.ip(f"link set tap{number} {verb}", unit.netns)
    unit.apply(verb.replace("txqueuelen", "queue").replace("promisc on", "promisc").replace("promisc off", "-promisc"))


def rename(lab: Lab) -> None:
    """Rename a tap with ip(8), and rename it back. Linux before 6.2 renames only interfaces that are down."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    lab.ip(f"link set tap{number} down", unit.netns)
    for old, new in ((f"tap{number}", f"other{number}"), (f"other{number}", f"tap{number}")):
        lab.ip(f"link set {old} name {new}", unit.netns)
        until(lambda new=new: lab.mount.read(f"virt{number}/tap/name") == new, f"the tap is called {new}")  # type: ignore[misc]
    unit.values["up"] = False


def bridge_by_ip(lab: Lab) -> None:
    """Set the bridge up or down with ip(8)."""
    if lab.bridge:
        lab.bridge_up = not lab.bridge_up
        lab.ip(f"link set {BRIDGE} {'up' if lab.bridge_up else 'down'}")


def delete(lab: Lab) -> None:
    """Delete a tap with ip(8). The interface is lost."""
    if (found := lab.pick(lambda unit: unit.cable is None)) is None or lab.random.random() < 0.5:
        return
    number, unit = found
    lab.ip(f"link del tap{number}", unit.netns)
    until(lambda: lab.is_lost(number), f"virt{number} is lost")
    unit.lost = True
    unit.values["up"] = False
    unit.ledger.close()


def _base(lab: Lab, number: int) -> tuple[int, int, int]:
    """Return the kernel's counters of a tap in a bridge, less what the new server has counted.

    A bridge sends reports of its own, and the kernel drops them while no server has the tap. The new server may already
    have taken some. They are read here, because virtfs counts a waiting frame only when it is read.
    """
    while True:
        received, transmitted, refused = before = lab.devices()[number]
        if lab.units[number].values["up"]:
            lab.drain(number)
        stats = lab.stats(number)
        if lab.devices()[number] == before:
            return received - stats["tx_frames"], transmitted, refused - incoming(stats)


def kill(lab: Lab) -> None:
    """Kill the server with SIGKILL and mount again. The state must be as before."""
    for number in [number for number, unit in lab.units.items() if unit.lost]:
        lab.destroy(number)
    before = lab.mount.read("ctl")
    lab.history.append("kill -9 and mount again")
    lab.mount.kill()
    lab.begin()
    devices = lab.devices()  # those of persistent taps; new ones begin at 0
    lab.mount.again(f"state={STATE}")
    lab.begin()
    if (after := lab.mount.read("ctl")) != before:
        raise Mismatch(f"after a kill, ctl is\n{after}\nand not\n{before}")
    for number, unit in lab.units.items():
        disturbed = unit.values["impair"] != "" or unit.ledger.disturbed
        unit.ledger = Ledger(mixed=bool(unit.bridge), unread=unit.cable is not None, disturbed=disturbed)
        known = number in devices and unit.bridge
        unit.ledger.base = _base(lab, number) if known else devices.get(number, (0, 0, 0))
        lab.plug_in(number, unit)
