"""A mount, a model of what it must contain, and random operations on both."""

import errno
import json
import os
import re
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from harness import traffic
from harness.lasting import Lasting
from harness.process import File, Process
from harness.waiting import Stuck, until

from .ledger import NONBLOCK, Ledger

UNITS = 6
USERS = (4001, 4002)
FAR, BRIDGE = "far", "bridge0"
DISK = "/mnt/disk"
STATE = f"{DISK}/state"
STATS = ("rx_frames", "rx_dropped", "rx_duplicated", "tx_frames", "tx_dropped", "tx_duplicated")
NEW: Final[dict[str, Any]] = {
    "up": False,
    "mtu": 1500,
    "queue": 256,
    "backlog": 0,
    "strict": False,
    "promisc": False,
    "antispoof": False,
    "exclusive": "read",
    "persist": False,
    "impair": "",
    "filter": "",
    "description": "",
}
IMPAIRMENTS = ("delay 2ms", "loss 20%", "in delay 1ms", "out duplicate 50%", "in duplicate 50% out delay 3ms")


class Mismatch(AssertionError):
    """The mount, the model, the kernel or the state file disagree."""


@dataclass
class Unit:
    """One interface as the model has it. values: as in status.json."""

    owner: int = 0
    values: dict[str, Any] = field(default_factory=lambda: dict(NEW))
    impairments: dict[str, str] = field(default_factory=lambda: {"in": "", "out": ""})
    inets: list[str] = field(default_factory=list)
    netns: str = ""
    bridge: str = ""
    cable: int | None = None
    lost: bool = False
    ledger: Ledger = field(default_factory=Ledger)

    def apply(self, verb: str) -> None:
        """Apply one verb."""
        name, _, value = verb.partition(" ")
        match name.lstrip("-"):
            case "up" | "down":
                self.values["up"] = name == "up"
            case "inet":
                self.inets = [one for one in self.inets if one != value] + [value] * (name == "inet")
            case "mtu" | "queue" | "backlog":
                self.values[name] = int(value)
            case "impair":
                self.ledger.disturbed = True
                self._impair(value)
            case "exclusive" | "description" | "filter":
                self.values[name.lstrip("-")] = value
            case switch:
                self.values[switch] = not name.startswith("-")

    def _impair(self, words: str) -> None:
        """Replace the impairments of the directions that the words name; of both if they name none."""
        named = re.findall(r"(in|out) ([^io]\S+ \S+)", words) or [("in", words), ("out", words)]
        self.impairments.update(named)
        towards, away = self.impairments["in"], self.impairments["out"]
        both = " ".join(f"{way} {one}" for way, one in self.impairments.items() if one)
        self.values["impair"] = towards if towards == away else both


class Lab:
    """A mount with a state file, users, traffic and a model.

    random: chooses what the operations do. history: the last operations, for the report of a mismatch. done: how often
    each operation has run. frames: how many frames were sent and written.
    """

    def __init__(self, mount: Lasting, random: Random) -> None:
        self.mount = mount
        self.random = random
        self.units: dict[int, Unit] = {}
        self.bridge = False
        self.history: deque[str] = deque(maxlen=200)
        self.done: dict[str, int] = {}
        self.frames = 0
        mount.end()
        mount.sh(f"mkdir {DISK} && mount -t tmpfs -o size=64k tmpfs {DISK} && ip netns add {FAR}")
        mount.again(f"state={STATE}")
        self._begin()

    def _begin(self) -> None:
        self.users = {uid: self.mount.process(uid) for uid in USERS} | {0: self.mount.process()}

    def do(self, name: str) -> None:
        """Carry out an operation: a key of OPERATIONS."""
        self.history.append(name)
        self.done[name] = self.done.get(name, 0) + 1
        OPERATIONS[name](self)

    def say(self, path: str, text: str, uid: int = 0) -> None:
        """Write a line to a ctl file. OSError: virtfs has refused it."""
        self.history.append(f"{uid}> {path}: {text}")
        process = self.users[uid]
        file = process.open(path, os.O_WRONLY)
        try:
            file.write(text + "\n")
        except OSError as refusal:
            self.history.append(f"  {refusal.strerror}")
            raise
        finally:
            file.close()

    def ip(self, words: str, netns: str = "") -> None:
        """Run ip(8), as a program outside of virtfs."""
        words = f"-n {netns} {words}" if netns else words
        self.history.append(f"ip {words}")
        self.mount.ip(words)

    def pick(self, wanted: Callable[[Unit], bool] = lambda unit: True) -> tuple[int, Unit] | None:
        """Return a random interface that has its tap and for which `wanted` is true."""
        some = [(n, unit) for n, unit in sorted(self.units.items()) if not unit.lost and wanted(unit)]
        return self.random.choice(some) if some else None

    # Commands

    def create(self) -> None:
        """Create an interface, or make sure that a second creation is refused."""
        number = self.random.randrange(1, UNITS + 1)
        verbs = [f"mtu {self.random.choice([1280, 1500, 9000])}", f"backlog {self.random.choice([0, 8])}"]
        verbs += self.random.choice([["up"], ["up"], ["persist", "up"], []])
        owner = self.random.choice([0, *USERS])
        line = f"create {number} {' '.join(verbs)}" + (f" owner {owner}" if owner else "")
        if number in self.units:
            self._refused("ctl", line, errno.EEXIST)
            return
        self.say("ctl", line)
        unit = self.units[number] = Unit(owner)
        for verb in verbs:
            unit.apply(verb)
        self._plug_in(number, unit)

    def _plug_in(self, number: int, unit: Unit) -> None:
        """Open the host's packet socket on a tap."""
        root = self.users[0]
        fd = root.call(traffic.wire_in, unit.netns, f"tap{number}")
        unit.ledger.wire = File(root, f"wire of tap{number}", fd)

    def _refused(self, path: str, line: str, number: int) -> None:
        try:
            self.say(path, line)
        except OSError as refusal:
            if refusal.errno == number:
                return
            raise Mismatch(f"{line}: {refusal}, expected {errno.errorcode[number]}") from refusal
        raise Mismatch(f"{line}: succeeded, expected {errno.errorcode[number]}")

    def destroy(self) -> None:
        """Destroy an interface, perhaps a lost one."""
        if self.units:
            self._destroy(self.random.choice(sorted(self.units)))

    def _destroy(self, number: int) -> None:
        unit = self.units[number]
        if unit.cable is not None and unit.ledger.mixed:  # a bridge could send a frame between settle() and the command
            self._cut(number, f"uncable {number} {unit.cable}")
        if unit.cable is not None:
            self._cut(number, f"destroy {number}")
        else:
            self.say("ctl", f"destroy {number}")
        unit.ledger.close()
        del self.units[number]

    def change(self) -> None:
        """Let root or the owner write a line of verbs to an interface's ctl."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        r = self.random
        pool = [
            f"mtu {r.choice([1280, 1400, 1500, 9000])}",
            f"queue {r.choice([5, 50, 256, 1000])}",
            f"backlog {r.choice([0, 1, 20])}",
            r.choice(["up", "up", "down"]),
            r.choice(["strict", "-strict"]),
            r.choice(["promisc", "-promisc"]),
            f"exclusive {r.choice(['read', 'none'])}",
        ]
        uid = r.choice([0, unit.owner])
        if uid == 0:
            pool += [r.choice(["persist", "-persist"]), r.choice(["antispoof", "-antispoof"])]
            pool += [f"inet 10.{number}.{r.randrange(4)}.1/24"]
        verbs = r.sample(pool, r.randrange(1, 4))
        if r.random() < 0.3:
            verbs.append(f"description {r.choice(['a note', 'of ü and # more', '42'])}")
        elif r.random() < 0.2:  # the last verb is refused by the kernel, so all are undone
            self._refused(f"virt{number}/ctl", " ".join([*verbs, f"-inet 10.99.{number}.1"]), errno.EADDRNOTAVAIL)
            if {"down", "up"} & set(verbs):
                self.drain(number)
            return
        self.say(f"virt{number}/ctl", " ".join(verbs), uid)
        for verb in verbs:
            unit.apply(verb)

    def impair(self) -> None:
        """Impair an interface or end its impairments. Or set a filter."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        verb = self.random.choice(
            [*(f"impair {words}" for words in IMPAIRMENTS), "-impair", "filter less 200", "-filter"]
        )
        self.say(f"virt{number}/ctl", verb, unit.owner)
        unit.apply(verb)

    def move(self) -> None:
        """Move a tap to the other namespace and back, by virtfs or by ip(8)."""
        if (found := self.pick(lambda unit: not unit.bridge)) is None:
            return
        number, unit = found
        to = "" if unit.netns else FAR
        if self.random.random() < 0.5:
            self.history.append(f"move virt{number} to {to!r}")
            self.mount.write(f"virt{number}/tap/netns", to + "\n")
        else:
            self.ip(f"link set tap{number} netns {to or self.mount.pid}", unit.netns)
            unit.inets, unit.values["up"] = [], False
            what = f"virt{number} is in {to!r} and down"
            until(lambda: self.mount.texts([f"virt{number}/tap/netns", f"virt{number}/up"]) == [to, "0"], what)
        unit.netns = to
        assert unit.ledger.wire is not None
        unit.ledger.frames_out += unit.ledger.wire.call(traffic.host_reads)
        unit.ledger.wire.close()
        self._plug_in(number, unit)

    def join(self) -> None:
        """Make the bridge, put a tap into it, or take one out, by virtfs or by ip(8)."""
        if not self.bridge:
            self.say("ctl", f"create {BRIDGE} up")
            self.bridge = True
        if (found := self.pick(lambda unit: not unit.netns)) is None:
            return
        number, unit = found
        unit.ledger.mixed = True
        to = "" if unit.bridge else BRIDGE
        if self.random.random() < 0.5:
            self.say(f"virt{number}/ctl", f"bridge {to}" if to else "-bridge")
        else:
            self.ip(f"link set tap{number} {f'master {to}' if to else 'nomaster'}")
            until(lambda: self.mount.read(f"virt{number}/tap/bridge") == to, f"virt{number} is in bridge {to!r}")
        unit.bridge = to

    def cable(self) -> None:
        """Connect two interfaces, or remove a cable."""
        if (found := self.pick(lambda unit: unit.cable is not None)) is not None and self.random.random() < 0.5:
            number, unit = found
            assert unit.cable is not None
            self._cut(number, f"uncable {number} {unit.cable}")
            return
        free = [number for number, unit in self.units.items() if unit.cable is None and not unit.lost]
        if len(free) < 2:
            return
        one, two = self.random.sample(sorted(free), 2)
        words = self.random.choice(["", "", " delay 2ms", " out loss 50%", " duplicate 20%"])
        self.settle()
        before = {number: self._stats(number)["rx_frames"] for number in (one, two)}
        self.say("ctl", f"cable {one} {two}{words}")
        for number, other in ((one, two), (two, one)):
            unit = self.units[number]
            unit.cable, unit.ledger.unread = other, True
            unit.ledger.disturbed |= bool(words) or self.units[other].ledger.disturbed
            unit.ledger.written -= before[other]

    def _cut(self, number: int, line: str) -> None:
        """Remove a cable, by `uncable` or by `destroy` of one end."""
        unit = self.units[number]
        assert unit.cable is not None
        ends = {number: unit.cable, unit.cable: number}
        if line.startswith("destroy"):
            self.settle()
            before = self._stats(number)["rx_frames"]
            self.say("ctl", line)
            self.units[unit.cable].ledger.written += before
        else:
            self.say("ctl", line)
            for end, other in ends.items():
                self.units[end].ledger.written += self._stats(other)["rx_frames"]
        for end in ends:
            self.units[end].cable = None

    # Traffic

    def lengths(self) -> list[int]:
        count = self.random.choice([1, 3, 30, 300])
        return [self.random.choice([13, 14, 60, 60, 150, 300, 1400, 1514, 1600]) for _ in range(count)]

    def write(self) -> None:
        """Let a user write frames."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        file = self.users[unit.owner].open(f"virt{number}/frame", os.O_WRONLY)
        frames = unit.ledger.numbered("virt", number, self.lengths())
        unit.ledger.written += file.call(traffic.write_all, frames)
        file.close()
        self.frames += len(frames)
        self.history.append(f"{len(frames)} frames written to virt{number}")

    def flood(self) -> None:
        """Let the host send frames through a tap."""
        if (found := self.pick(lambda unit: unit.values["up"])) is None:
            return
        number, unit = found
        assert unit.ledger.wire is not None
        lengths = [max(60, min(length, unit.values["mtu"])) for length in self.lengths()]
        frames = unit.ledger.numbered("host", number, lengths)
        unit.ledger.sent += unit.ledger.wire.call(traffic.host_sends, frames)
        self.frames += len(frames)
        self.history.append(f"{len(frames)} frames sent through tap{number}")

    def reader(self) -> None:
        """Open `frame` for reading, or read from it and close it."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        if unit.ledger.reader is None:
            unit.ledger.reader = self.users[unit.owner].open(f"virt{number}/frame", NONBLOCK)
            self.history.append(f"virt{number}/frame is open")
            return
        if self.random.random() < 0.7:
            unit.ledger.take_in(unit.ledger.reader.call(traffic.read_all))
        unit.ledger.reader.close()
        unit.ledger.reader = None
        self.history.append(f"virt{number}/frame is closed")

    def capture(self) -> None:
        """Capture while frames are sent and written, and inject the capture."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        root = self.users[0]
        file = root.open(f"virt{number}/pcap", os.O_RDONLY)
        self.flood()
        self.write()
        data = file.read(1 << 16)
        self.history.append(f"captured {len(data)} bytes at virt{number}")
        file.close()

    # Faults

    def kill_client(self) -> None:
        """Kill a program that waits for a frame."""
        if (found := self.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
            return
        number, unit = found
        program = self.mount.process(unit.owner)
        file = program.open(f"virt{number}/frame", os.O_RDONLY)
        unit.ledger.unread = True
        file.begin_read()
        self.flood()
        self.history.append(f"kill a reader of virt{number}")
        program.kill()

    def stop_client(self) -> None:
        """Stop a program that reads, and let it continue after a flood."""
        if (found := self.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
            return
        number, unit = found
        program = self.mount.process(unit.owner)
        file = program.open(f"virt{number}/frame", NONBLOCK)
        self.history.append(f"stop a reader of virt{number}")
        program.signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                self.flood()
                self.write()
        finally:
            program.signal(signal.SIGCONT)
        unit.ledger.take_in(file.call(traffic.read_all))
        program.close()

    def full_disk(self) -> None:
        """Fill the disk of the state file, change something, and make room again.

        The change may be refused; then it has had no effect.
        """
        if (found := self.pick()) is None:
            return
        number, unit = found
        self.users[0].call(traffic.fill_disk, f"{DISK}/full")
        try:
            verb = f"description disk {self.random.randrange(100)}"
            try:
                self.say(f"virt{number}/ctl", verb)
            except OSError:
                pass
            else:
                unit.apply(verb)
        finally:
            self.users[0].call(os.unlink, f"{DISK}/full")
        until(self._saved, "the state is saved once there is room")
        self._forgive("state file", "No space left")

    def out_of_descriptors(self) -> None:
        """Let the server run out of descriptors, and create an interface, a cable and a capture meanwhile."""
        pid = self.mount.server.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
        free = next((number for number in range(1, UNITS + 1) if number not in self.units), None)
        refused = 0
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + self.random.randrange(4), before[1]))
        try:
            lines = [f"create {free} up"] if free else []
            for line in lines:
                try:
                    self.say("ctl", line)
                except OSError:
                    refused += 1
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        if free and not refused:
            self.units[free] = Unit()
            self.units[free].apply("up")
            self._plug_in(free, self.units[free])
        self._forgive("Too many open files", "descriptors")

    def _forgive(self, *parts: str) -> None:
        """Remove expected complaints from the server's log."""
        self.mount.log[:] = [line for line in self.mount.log if not any(part in line for part in parts)]

    # Changes by other programs

    def by_ip(self) -> None:
        """Change a tap with ip(8)."""
        if (found := self.pick()) is None:
            return
        number, unit = found
        verb = self.random.choice(["up", "down", "mtu 1300", "mtu 1500", "txqueuelen 77", "promisc on", "promisc off"])
        if verb.startswith("txqueuelen"):
            self.drain(number)  # the kernel drops frames without counting them if the queue gets shorter
        self.ip(f"link set tap{number} {verb}", unit.netns)
        unit.apply(
            verb.replace("txqueuelen", "queue").replace("promisc on", "promisc").replace("promisc off", "-promisc")
        )

    def delete(self) -> None:
        """Delete a tap with ip(8). The interface is lost."""
        if (found := self.pick(lambda unit: unit.cable is None)) is None or self.random.random() < 0.5:
            return
        number, unit = found
        self.ip(f"link del tap{number}", unit.netns)
        until(lambda: self._status()[number]["lost"], f"virt{number} is lost")
        unit.lost = True
        unit.values["up"] = False
        unit.ledger.close()

    def kill(self) -> None:
        """Kill the server with SIGKILL and mount again. The state must be as before."""
        for number in [number for number, unit in self.units.items() if unit.lost]:
            self._destroy(number)
        before = self.mount.read("ctl")
        self.history.append("kill -9 and mount again")
        self.mount.kill()
        self._begin()
        devices = self._devices()  # those of persistent taps; new ones begin at 0
        self.mount.again(f"state={STATE}")
        self._begin()
        if (after := self.mount.read("ctl")) != before:
            raise Mismatch(f"after a kill, ctl is\n{after}\nand not\n{before}")
        for number, unit in self.units.items():
            disturbed = unit.values["impair"] != "" or unit.ledger.disturbed
            base = devices.get(number, (0, 0, 0))
            unit.ledger = Ledger(base=base, mixed=bool(unit.bridge), unread=unit.cable is not None)
            unit.ledger.disturbed = disturbed
            self._plug_in(number, unit)

    # Checks

    def _names(self) -> set[int]:
        return {int(name.removeprefix("virt")) for name in self.mount.units()}

    def _status(self) -> dict[int, dict[str, Any]]:
        whole = json.loads(self.mount.read("status.json"))
        return {virt["unit"]: virt for virt in whole["virts"]}

    def _stats(self, number: int) -> dict[str, int]:
        texts = self.mount.texts(f"virt{number}/stats/{name}" for name in STATS)
        return dict(zip(STATS, map(int, texts), strict=True))

    def _saved(self) -> bool:
        return self.mount.read("ctl") == self.mount.root.call(Path.read_text, Path(STATE)).removesuffix("\n")

    def _devices(self) -> dict[int, tuple[int, int, int]]:
        """Return the received, transmitted and dropped packets of each tap, from /proc/net/dev."""
        found = {}
        for netns in ("", FAR):
            for line in self.users[0].call(traffic.devices, netns).splitlines():
                name, _, rest = line.partition(":")
                if name.strip().startswith("tap"):
                    columns = rest.split()
                    found[int(name.strip()[3:])] = int(columns[1]), int(columns[9]), int(columns[11])
        return found

    def settle(self) -> None:
        """Read everything that waits, until all frames are accounted for. Mismatch: they are not."""
        wrong: list[str] = []

        def right() -> bool:
            wrong[:] = self._unaccounted()
            return not wrong

        try:
            until(right, "all frames are accounted for", 5)
        except Stuck:
            raise Mismatch("\n".join(wrong)) from None

    def _unaccounted(self) -> list[str]:
        there = [number for number, unit in self.units.items() if not unit.lost]
        for number in there:
            if self.units[number].values["up"]:
                self.drain(number)
        stats = {number: self._stats(number) for number in there}
        devices = self._devices()
        wrong = []
        for number in there:
            unit = self.units[number]
            carried = 0 if unit.cable is None else stats[unit.cable]["rx_frames"]
            sums = unit.ledger.wrong_counts(stats[number], devices[number], carried)
            wrong += [f"virt{number}: {one}; {stats[number]}, kernel {devices[number]}, {unit}" for one in sums]
        return wrong

    def checkpoint(self) -> None:
        """Compare everything while no traffic runs. Mismatch: something differs."""
        self.done["checkpoint"] = self.done.get("checkpoint", 0) + 1
        self.settle()
        for number, unit in self.units.items():
            if unit.ledger.wire is not None:
                unit.ledger.frames_out += unit.ledger.wire.call(traffic.host_reads)
            self._same(f"order of frames at virt{number}", unit.ledger.wrong_order(), [])
        until(self._saved, "the state file is ctl")
        status = self._status()
        self._same("interfaces", sorted(status), sorted(self.units))
        self._same("directories", self._names(), set(self.units))
        links = self._links()
        for number, unit in self.units.items():
            shown = status[number]
            self._same(f"virt{number}", {name: shown[name] for name in unit.values}, unit.values)
            self._same(f"virt{number}: lost", shown["lost"], unit.lost)
            if not unit.lost:
                tap = shown["tap"]
                told = sorted(tap["addresses"]), tap["netns"], tap["bridge"]
                self._same(f"the tap of virt{number}", told, (sorted(unit.inets), unit.netns, unit.bridge))
                self._same(f"tap{number}", links.pop(number, None), self._expected(unit))
        self._same("other taps", links, {})

    def _links(self) -> dict[int, dict[str, Any]]:
        """Return the taps as ip(8) shows them."""
        found = {}
        for netns in ("", FAR):
            for row in json.loads(self.mount.ip(f"{f'-n {netns}' if netns else ''} -json -details address")):
                if row["ifname"].startswith("tap"):
                    found[int(row["ifname"][3:])] = {
                        "netns": netns,
                        "up": "UP" in row["flags"],
                        "mtu": row["mtu"],
                        "queue": row["txqlen"],
                        "persist": bool(row["linkinfo"]["info_data"]["persist"]),
                        "bridge": row.get("master", ""),
                        "inets": sorted(f"{one['local']}/{one['prefixlen']}" for one in row["addr_info"]),
                    }
        return found

    @staticmethod
    def _expected(unit: Unit) -> dict[str, Any]:
        """Return what `_links` must return for an interface."""
        kept = {name: unit.values[name] for name in ("up", "mtu", "queue", "persist")}
        return {"netns": unit.netns, **kept, "bridge": unit.bridge, "inets": sorted(unit.inets)}

    @staticmethod
    def _same(what: str, one: object, other: object) -> None:
        if one != other:
            raise Mismatch(f"{what}: {one}, expected {other}")

    def clear(self) -> None:
        """Destroy everything."""
        for number in sorted(self.units):
            self._destroy(number)
        if self.bridge:
            self.say("ctl", f"destroy {BRIDGE}")
            self.bridge = False
        self._same("ctl", self.mount.read("ctl"), "")
        self._same("interfaces of the host", self.mount.links(), ["lo"])

    def drain(self, number: int) -> None:
        """Read all frames of an interface that is up."""
        ledger = self.units[number].ledger
        file = ledger.reader or self.mount.root.open(f"virt{number}/frame", NONBLOCK)
        ledger.take_in(file.call(traffic.read_all))
        if file is not ledger.reader:
            file.close()


OPERATIONS: Final[dict[str, Callable[[Lab], None]]] = {
    "create": Lab.create,
    "destroy": Lab.destroy,
    "change": Lab.change,
    "impair": Lab.impair,
    "move": Lab.move,
    "join": Lab.join,
    "cable": Lab.cable,
    "write": Lab.write,
    "flood": Lab.flood,
    "reader": Lab.reader,
    "capture": Lab.capture,
    "kill a client": Lab.kill_client,
    "stop a client": Lab.stop_client,
    "full disk": Lab.full_disk,
    "no descriptors": Lab.out_of_descriptors,
    "ip": Lab.by_ip,
    "ip link del": Lab.delete,
    "kill the server": Lab.kill,
}
# How often each operation is chosen, compared with the others. Those that are left out have 1.
WEIGHTS: Final = {"create": 4, "change": 6, "impair": 4, "write": 8, "flood": 8, "reader": 6, "cable": 3, "ip": 4}
# Operations that a caller chooses itself.
SEPARATE: Final = {"kill the server"}
CHOICES: Final = [name for name in OPERATIONS if name not in SEPARATE for _ in range(WEIGHTS.get(name, 1))]
