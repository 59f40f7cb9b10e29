"""A daemon without a kernel: commands run on fake taps and links."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from errno import EADDRNOTAVAIL, EBUSY, EEXIST, ENODEV, ENXIO
from typing import Any, ParamSpec, TypeVar, cast

import pytest
import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, Unit, User
from virtfs.core.ip import IpAddress, IpInterface
from virtfs.core.limits import Limits
from virtfs.core.script import Script
from virtfs.core.virt import Virt
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.service import Daemon
from virtfs.forward.supervisor import supervised
from virtfs.forward.tapwatch import TapWatch
from virtfs.host.fakes import FakeTap
from virtfs.host.monitor import Event
from virtfs.host.netlink_values import Link
from virtfs.host.tap import TapTaken

P = ParamSpec("P")
T = TypeVar("T")

SUPER = User(Uid(0), Gid(0), 1)
ALICE = User(Uid(1000), Gid(1000), 2)


class Host:
    """The interfaces of a fake host.

    refuse: called before every change with its kind ("mtu", "up", "add_address" …) and value; raises to refuse it.
    """

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.assigned: dict[str, tuple[IpInterface, ...]] = {}
        self.persistent: set[str] = set()
        self.held: dict[str, FakeTap] = {}
        self.held_by_others: set[str] = set()
        self.refuse: Callable[[str, object], None] = lambda what, value: None
        self._index = 1

    def add(self, name: str, persistent: bool = True) -> None:
        """Add an interface, as `ip tuntap add` does."""
        self._index += 1
        mac = bytes((0x02, 0, 0, 0, 0, self._index & 0xFF))
        self.links[name] = Link(self._index, name, False, 1500, mac, False, 1000, 0, None, False)
        self.assigned[name] = ()
        if persistent:
            self.persistent.add(name)

    def vanish(self, name: str) -> None:
        """Delete an interface, as `ip link del` does."""
        self.held.pop(name).vanish()
        del self.links[name], self.assigned[name]

    def open(self, unit: Unit) -> FakeTap:
        """Open a tap. Replaces Kernel.open_tap."""
        name = f"tap{unit}"
        self.refuse("open", unit)
        self._forget_closed()
        if name in self.held or name in self.held_by_others:
            raise TapTaken(EBUSY, f'"{name}" is held by another program')
        made = name not in self.links
        if made:
            self.add(name, persistent=False)
        tap = self.held[name] = FakeTap(name, made)
        return tap

    def _forget_closed(self) -> None:
        for name, tap in list(self.held.items()):
            if tap.fd < 0:
                del self.held[name]
                if name not in self.persistent:
                    del self.links[name], self.assigned[name]

    def taps(self) -> set[str]:
        """Return the names of the interfaces, as `ip link` lists them."""
        self._forget_closed()
        return set(self.links)

    def _name(self, tap: FakeTap) -> str:
        name = tap.name()
        if self.held.get(name) is not tap:
            raise VirtError(ENXIO, "the tap's interface is gone")
        return name

    # Methods that replace those of Links

    def get(self, tap: FakeTap) -> Link:
        return self.links[self._name(tap)]

    def dropped(self) -> dict[int, int]:
        return {link.index: link.tx_dropped for link in self.links.values()}

    def dropped_by(self, index: int) -> int:
        if index not in self.dropped():
            raise VirtError(ENODEV, "the tap's interface is gone")
        return self.dropped()[index]

    def set(self, tap: FakeTap, **change: Any) -> None:
        name = self._name(tap)
        for what in ("address", "txqlen", "mtu", "up"):
            if change.get(what) is not None:
                self.refuse(what, change[what])
                self.links[name] = replace(self.links[name], **{what: change[what]})

    def quiet(self, tap: FakeTap) -> None:
        self.refuse("quiet", None)

    def begin(self, tap: FakeTap, txqlen: int) -> Link:
        self.quiet(tap)
        self.set(tap, txqlen=txqlen)
        return self.get(tap)

    def addresses(self, tap: FakeTap) -> tuple[IpInterface, ...]:
        return self.assigned[self._name(tap)]

    def add_address(self, tap: FakeTap, address: IpInterface) -> None:
        name = self._name(tap)
        self.refuse("add_address", address)
        if address in self.assigned[name]:
            raise VirtError(EEXIST, "the address is assigned already")
        self.assigned[name] += (address,)

    def remove_address(self, tap: FakeTap, address: IpInterface | IpAddress) -> None:
        name = self._name(tap)
        self.refuse("remove_address", address)
        rest = tuple(one for one in self.assigned[name] if address not in (one, one.ip))
        if rest == self.assigned[name]:
            raise VirtError(EADDRNOTAVAIL, "the interface does not have this address")
        self.assigned[name] = rest

    def addresses_in_full(self, tap: FakeTap) -> tuple[IpInterface, ...]:
        return self.addresses(tap)

    def restore_addresses(self, tap: FakeTap, held: tuple[IpInterface, ...], name: str) -> None:
        self.refuse("restore_addresses", held)
        self.assigned[self._name(tap)] = held


class FakeMonitor:
    """A Monitor that reports what `drain` returns, at first nothing."""

    def __init__(self) -> None:
        self.drain: Callable[[], list[Event]] = list

    def watch(self, namespace: int) -> int | None:
        """Return the nsid of a namespace: all fake taps are in the daemon's own."""
        return None


class FakeKernel:
    """Replaces Kernel, and starts no threads."""

    mark = ""

    def __init__(self, host: Host) -> None:
        self.links = host
        self.monitor = FakeMonitor()
        self.watch = TapWatch()
        self.open_tap = host.open

    async def delete_taps(self, taps: Sequence[FakeTap]) -> None:
        for tap in taps:
            tap.close()

    async def close_taps(self, taps: Iterable[FakeTap]) -> None:
        for tap in taps:
            tap.close()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        await trio.lowlevel.checkpoint()
        result = function(*args)
        await trio.lowlevel.checkpoint()
        return result


class Bench:
    """A daemon, and methods that write commands as users do."""

    def __init__(self, host: Host, made: Daemon) -> None:
        self.host = host
        self.daemon = made
        self.monitor = cast(FakeKernel, made.kernel).monitor
        self.root = made.root
        self.registry = made.registry

    async def say(self, text: str, user: User = SUPER, unit: int | None = None, script: Script | None = None) -> None:
        """Write once to the mount's ctl, or, if `unit` is given, to the ctl of that interface."""
        virt = None if unit is None else self.virt(unit)
        await self.daemon.commands.run(virt, script or Script(), text.encode(errors="surrogateescape"), user)

    async def refused(self, text: str, user: User = SUPER, unit: int | None = None) -> int:
        """Return the errno of a write, which must fail. Its error sentence must be in last_error."""
        with pytest.raises(VirtError) as caught:
            await self.say(text, user, unit)
        assert self.last_error(user) == caught.value.strerror
        assert "\n" not in caught.value.strerror
        return caught.value.errno

    def last_error(self, user: User) -> str:
        return self.daemon.errors.last_error(user)

    def ctl(self, virt: Virt | None = None) -> str:
        """Return the text of the mount's ctl, or of an interface's."""
        text = self.daemon.reports.ctl(virt)
        return text if isinstance(text, str) else "".join(text)

    async def refresh(self) -> None:
        await self.daemon.reports.refresh(None)

    def virt(self, unit: int) -> Virt:
        return self.registry.get(Unit(unit)).virt

    def names(self) -> set[str]:
        """Return the names of the interfaces in the mount's root directory."""
        return {name for name in self.root.children if name.startswith(("virt", "tap"))}


@asynccontextmanager
async def daemon(limits: Limits | None = None) -> AsyncIterator[Bench]:
    """Create a daemon. At the end it must have released everything."""
    host = Host()
    async with supervised() as tasks:
        fifos = Fifos(tasks.start)
        try:
            made = Daemon(cast(Kernel, FakeKernel(host)), fifos, tasks, limits or Limits(), None, "", "")
            bench = Bench(host, made)
            yield bench
            host.refuse = lambda what, value: None
            await made.commands.end()
            assert bench.names() == set()
            assert host.taps() == host.persistent & set(host.links)
            tasks.cancel()
        finally:
            fifos.remove()
