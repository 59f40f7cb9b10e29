"""A mount with users and a model of what it must contain, and the comparison of both."""

import errno
import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from harness import traffic
from harness.lasting import Lasting
from harness.process import File
from harness.waiting import Stuck, until

from .ledger import NONBLOCK, outgoing
from .model import BRIDGE, DISK, FAR, STATE, STATS, USERS, Mismatch, Unit


class Lab:
    """A mount with a state file, users, traffic and a model.

    random: makes the choices of the operations. history: the last operations, for the report of a mismatch. done: the
    number of times each operation has run. frames: the number of frames sent and written.
    """

    def __init__(self, mount: Lasting, random: Random) -> None:
        self.mount = mount
        self.random = random
        self.units: dict[int, Unit] = {}
        self.bridge = self.bridge_up = False
        self.history: deque[str] = deque(maxlen=200)
        self.done: dict[str, int] = {}
        self.frames = 0
        mount.end()
        mount.sh(f"mkdir {DISK} && mount -t tmpfs -o size=64k tmpfs {DISK} && ip netns add {FAR}")
        mount.again(f"state={STATE}")
        self.begin()

    def begin(self) -> None:
        self.users = {uid: self.mount.process(uid) for uid in USERS} | {0: self.mount.process()}

    def note(self, operation: str) -> None:
        """Record that an operation begins."""
        self.history.append(operation)
        self.done[operation] = self.done.get(operation, 0) + 1

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

    def plug_in(self, number: int, unit: Unit) -> None:
        """Open the host's packet socket on a tap."""
        root = self.users[0]
        fd = root.call(traffic.wire_in, unit.netns, f"tap{number}")
        unit.ledger.wire = File(root, f"wire of tap{number}", fd)

    def refuse(self, path: str, line: str, number: int) -> None:
        """Write a line to a ctl file, which must be refused with this errno."""
        try:
            self.say(path, line)
        except OSError as refusal:
            if refusal.errno == number:
                return
            raise Mismatch(f"{line}: {refusal}, expected {errno.errorcode[number]}") from refusal
        raise Mismatch(f"{line}: succeeded, expected {errno.errorcode[number]}")

    def destroy(self, number: int) -> None:
        """Destroy an interface, with its cable."""
        unit = self.units[number]
        if unit.cable is not None and unit.ledger.mixed:  # a bridge could send a frame between settle() and the command
            self.cut(number, f"uncable {number} {unit.cable}")
        if unit.cable is not None:
            self.cut(number, f"destroy {number}")
        else:
            self.say("ctl", f"destroy {number}")
        unit.ledger.close()
        del self.units[number]

    def cut(self, number: int, line: str) -> None:
        """Remove a cable, by `uncable` or by `destroy` of one end."""
        unit = self.units[number]
        assert unit.cable is not None
        ends = {number: unit.cable, unit.cable: number}
        self.settle()
        carried = self.carried()
        self.say("ctl", line)
        for end, other in ends.items():
            self.units[end].cable = None
            self.units[end].ledger.written += carried[end]
            if line.startswith("uncable") and self.units[other].ledger.mixed:
                # A bridge may have sent a frame after settle().
                self.units[end].ledger.written = outgoing(self.stats(end))

    def names(self) -> set[int]:
        """Return the units of the directories in the mount."""
        return {int(name.removeprefix("virt")) for name in self.mount.units()}

    def is_lost(self, number: int) -> bool:
        """Return whether an interface has lost its tap, as status.json has it."""
        virts = json.loads(self.mount.read("status.json"))["virts"]
        return any(virt["lost"] for virt in virts if virt["unit"] == number)

    def stats(self, number: int) -> dict[str, int]:
        """Return an interface's counters of frames."""
        texts = self.mount.texts(f"virt{number}/stats/{name}" for name in STATS)
        return dict(zip(STATS, map(int, texts), strict=True))

    def carried(self) -> dict[int, int]:
        """Return the number of frames that a cable has handed to each interface, by unit."""
        ends = {}
        for cable in json.loads(self.mount.read("status.json"))["cables"]:
            for name, direction in zip(cable["ends"], ("in", "out"), strict=True):
                ends[int(name.removeprefix("virt"))] = cable["stats"][direction]["frames"]
        return ends

    def saved(self) -> bool:
        """Return whether the state file has the text of ctl."""
        return self.mount.read("ctl") == self.mount.root.call(Path.read_text, Path(STATE)).removesuffix("\n")

    def devices(self) -> dict[int, tuple[int, int, int]]:
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
            until(right, "all frames are accounted for")
        except Stuck as stuck:
            raise Mismatch("\n".join(wrong) or str(stuck)) from None

    def _unaccounted(self) -> list[str]:
        there = [number for number, unit in self.units.items() if not unit.lost]
        for number in there:
            if self.units[number].values["up"]:
                self.drain(number)
        stats = {number: self.stats(number) for number in there}
        carried = self.carried()
        devices = self.devices()
        wrong = []
        for number in there:
            unit = self.units[number]
            sums = unit.ledger.wrong_counts(stats[number], devices[number], carried.get(number, 0))
            wrong += [f"virt{number}: {one}; {stats[number]}, kernel {devices[number]}, {unit}" for one in sums]
        return wrong

    def checkpoint(self) -> None:
        """Compare everything while no traffic runs. Mismatch: something differs."""
        self.note("checkpoint")
        self.settle()
        for number, unit in self.units.items():
            if unit.ledger.wire is not None:
                unit.ledger.frames_out += unit.ledger.wire.call(traffic.host_reads)
            self.same(f"order of frames at virt{number}", unit.ledger.wrong_order(), [])
        until(self.saved, "the state file is ctl")
        whole = json.loads(self.mount.read("status.json"))
        status = {virt["unit"]: virt for virt in whole["virts"]}
        self.same("interfaces", sorted(status), sorted(self.units))
        self._compare_pairs(whole)
        self.same("directories", self.names(), set(self.units))
        links = self._links()
        for number, unit in self.units.items():
            shown = status[number]
            self.same(f"virt{number}", {name: shown[name] for name in unit.values}, unit.values)
            self.same(f"virt{number}: owner", (shown["owner"], shown["lost"]), (unit.owner, unit.lost))
            if not unit.lost:
                tap = shown["tap"]
                told = sorted(tap["addresses"]), tap["netns"], tap["bridge"]
                self.same(f"the tap of virt{number}", told, (sorted(unit.inets), unit.netns, unit.bridge))
                self.same(f"tap{number}", links.pop(number, None), self._expected(unit))
        self.same("other taps", links, {})

    def _compare_pairs(self, whole: dict[str, Any]) -> None:
        """Compare cables and bridges. whole: status.json."""
        cables = {frozenset(cable["ends"]) for cable in whole["cables"]}
        wanted = {frozenset((f"virt{n}", f"virt{unit.cable}")) for n, unit in self.units.items() if unit.cable}
        self.same("cables", cables, wanted)
        bridges = [(one["name"], one["up"], sorted(m["name"] for m in one["members"])) for one in whole["bridges"]]
        members = [f"tap{number}" for number, unit in sorted(self.units.items()) if unit.bridge and not unit.lost]
        self.same("bridges", bridges, [(BRIDGE, self.bridge_up, members)] if self.bridge else [])

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
    def same(what: str, one: object, other: object) -> None:
        """Raise Mismatch if two values differ. other: the expected one."""
        if one != other:
            raise Mismatch(f"{what}: {one}, expected {other}")

    def clear(self) -> None:
        """Destroy everything."""
        for number in sorted(self.units):
            self.destroy(number)
        if self.bridge:
            self.say("ctl", f"destroy {BRIDGE}")
            self.bridge = False
        self.same("ctl", self.mount.read("ctl"), "")
        self.same("interfaces of the host", self.mount.links(), ["lo"])

    def drain(self, number: int) -> None:
        """Read all frames of an interface that is up."""
        ledger = self.units[number].ledger
        file = ledger.reader or self.mount.root.open(f"virt{number}/frame", NONBLOCK)
        ledger.take_in(file.call(traffic.read_all))
        if file is not ledger.reader:
            file.close()
