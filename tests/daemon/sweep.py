"""Run users' requests, making each function that takes a resource fail in turn.

This is a program, which runs in namespaces of its own. It prints one line of JSON for each case: its name, the number
of failures tried, and the faults found.
Arguments: the cases to try (default: all). --thorough tries more failures in each case.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.limits import Limits
from virtfs.core.memory import Memory
from virtfs.core.script import Script
from virtfs.daemon import service
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.statefile import StateFile
from virtfs.files.device import DeviceFile, DeviceHandle
from virtfs.files.node import Directory
from virtfs.files.text import Text
from virtfs.forward.supervisor import supervised
from virtfs.host import descriptors, netns
from virtfs.host.netnames import open_netns
from virtfs.host.rtnl import Rtnl

from .doors import SHORT, nth, table

SUPER = User(Uid(0), Gid(0), 1)
PATIENCE = 5  # seconds
FAR = "far"
QUICK = "/run/netns"  # a tmpfs


class Daemon:
    """A daemon without a mount."""

    def __init__(self, made: service.Daemon, state: Path, here: Rtnl, far: Rtnl) -> None:
        self.made = made
        self.root = made.root
        self._here = here
        self._far = far
        self.state = state
        self._open: list[DeviceHandle] = []

    async def say(self, text: str) -> None:
        """Write to ctl. If the write fails, last_error must have its error sentence, which names the verb."""
        try:
            await self.made.commands.run(None, Script(), text.encode(), SUPER)
        except VirtError as refusal:
            if self.made.errors.last_error(SUPER) != refusal.strerror or text.split()[0] not in refusal.strerror:
                raise AssertionError(f"last_error is {self.made.errors.last_error(SUPER)}") from refusal
            raise

    def node(self, path: str) -> object:
        node: object = self.root
        for name in path.split("/"):
            assert isinstance(node, Directory)
            node = node.children[name]
        return node

    async def open(self, path: str, flags: int) -> None:
        """Open a stream. close() closes it."""
        stream = self.node(path)
        assert isinstance(stream, DeviceFile)
        opening = stream.admit(flags, SUPER)
        self._open.append(opening if isinstance(opening, DeviceHandle) else await opening)

    async def close(self) -> None:
        """Close all open streams."""
        while self._open:
            self._open.pop().release()

    async def read(self, path: str) -> None:
        """Open and read a text file, which must not be empty."""
        text = self.node(path)
        assert isinstance(text, Text)
        assert await text.open(SUPER, Memory()).read(0, 1 << 20)

    def picture(self) -> dict[str, object]:
        """Return everything that a failed request must leave unchanged."""
        return {
            "tree": sorted(name for name in self.root.children if name.startswith(("virt", "tap"))),
            "bridges": sorted(self.made.bridges.directory.children),
            "ctl": self.made.state.text(),
            "here": _links(self._here),
            "far": _links(self._far),
        }


def _links(rtnl: Rtnl) -> list[str]:
    """Return the interfaces of a network namespace and their addresses."""
    found = []
    for link in rtnl.dump(RTM_GETLINK, ifinfmsg()):
        get = link.get_attr
        about = [get("IFLA_IFNAME"), get("IFLA_MTU"), get("IFLA_TXQLEN"), get("IFLA_ADDRESS"), link["flags"] & 1]
        found.append(f"{about} of {get('IFLA_MASTER')}")
    for address in rtnl.dump(RTM_GETADDR, ifaddrmsg()):
        found.append(f"{address['index']} {address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}")
    return sorted(found)


def alike(picture: dict[str, object]) -> str:
    """Return a picture as text, without MAC addresses and indices, which differ in each run."""

    def masked(text: str) -> str:
        text = re.sub("([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
        return re.sub(r"of \d+$|^\d+ (?=[0-9a-f]+[.:])", "", text)

    return json.dumps({
        part: sorted(map(masked, shown)) if isinstance(shown, list) else masked(str(shown))
        for part, shown in picture.items()
    })  # fmt: skip


Step = Callable[[Daemon], Awaitable[None]]


def say(text: str) -> Step:
    return lambda daemon: daemon.say(text)


def opened(path: str, flags: int = os.O_RDONLY) -> Step:
    return lambda daemon: daemon.open(path, flags)


def read(path: str) -> Step:
    return lambda daemon: daemon.read(path)


async def closed(daemon: Daemon) -> None:
    await daemon.close()


async def clone_closed(daemon: Daemon) -> None:
    """Close clone and wait until its interface is gone."""
    await daemon.close()
    assert await until(lambda: daemon.made.state.text() == ""), "the interface of clone remains after close(2)"


@dataclass
class Case:
    """A request to try.

    what: the request, which runs while doors fail
    after: the steps that undo the request and the set-up
    before: the steps that set up the state
    wrong: the faults found
    tried: the number of failures tried
    """

    what: Step
    after: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    wrong: list[str] = field(default_factory=list)
    tried: int = 0


ONE = say("create 1 up inet 10.0.1.1/24")
TWO = say("create 2 up")
GONE = say("destroy 1")
BOTH_GONE = say("destroy 1\ndestroy 2")
NO_BRIDGE = say("destroy bridge0")


async def BRIDGE(daemon: Daemon) -> None:
    """Create a bridge whose MAC address does not come from its ports."""
    await daemon.say("create bridge0 up")
    subprocess.run(["ip", "link", "set", "bridge0", "address", "02:00:00:00:00:01"], check=True)


CASES = {
    "create": Case(say("create 1 up mtu 1400 queue 100 inet 10.0.1.1/24 inet6 fd00::1/64 description x"), (GONE,)),
    "create lowest": Case(say("create"), (say("destroy 0"),)),
    "create netns": Case(say(f"create 1 up inet 10.0.1.1/24 netns {FAR}"), (GONE,)),
    "create with all": Case(
        say("create 1 bridge bridge0 impair delay 1ms history 64K carrier open upopen persist"),
        (say("virt1 -persist"), GONE, NO_BRIDGE),
        (BRIDGE,),
    ),
    "netns": Case(say(f"virt1 netns {FAR}"), (GONE,), (ONE,)),
    "change elsewhere": Case(say("virt1 mtu 1400 inet 10.9.1.1/24"), (GONE,), (say(f"create 1 up netns {FAR}"),)),
    "values": Case(say("virt1 mtu 1300 down taplink 02:00:00:00:00:09 queue 9 -inet 10.0.1.1"), (GONE,), (ONE,)),
    "small mtu": Case(say("virt1 mtu 1400"), (GONE,), (say("create 1 up mtu 1000"),)),
    "opening": Case(say("virt1 carrier open upopen"), (GONE,), (ONE,)),
    "owner": Case(say("virt1 owner daemon group daemon"), (GONE,), (ONE,)),
    "destroy": Case(GONE, (), (ONE,)),
    "bridge": Case(say("create bridge0 up add tap1 inet 10.7.7.1/24"), (NO_BRIDGE, GONE), (ONE,)),
    "bridge add": Case(say("bridge0 add tap1 adopt maxage 20 -learn tap1"), (NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "virt bridge": Case(say("virt1 bridge bridge0"), (say("virt1 -bridge"), NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "bridge destroy": Case(NO_BRIDGE, (GONE,), (ONE, say("create bridge0 up add tap1"))),
    "cable": Case(say("cable 1 2 delay 1ms"), (BOTH_GONE,), (ONE, TWO)),
    "impair": Case(say("virt1 impair delay 1ms"), (GONE,), (ONE,)),
    "impair turned": Case(say("virt1 impair out delay 1ms"), (GONE,), (say("create 1 up impair in delay 1ms"),)),
    "filter": Case(say("virt1 filter tcp port 80"), (GONE,), (ONE,)),
    "filter port": Case(say("virt1 filter tcp port http"), (GONE,), (say("create 1 up filter icmp"),)),
    "-filter": Case(say("virt1 -filter"), (GONE,), (say("create 1 up history 64K filter icmp"),)),
    "history": Case(say("virt1 history 64K"), (GONE,), (ONE,)),
    "pcap": Case(opened("virt1/pcap"), (closed, GONE), (ONE,)),
    "root's pcap": Case(opened("pcap"), (closed, BOTH_GONE), (ONE, TWO)),
    "inject": Case(opened("virt1/inject", os.O_WRONLY), (closed, GONE), (ONE,)),
    "frame": Case(opened("virt1/frame", os.O_RDWR), (closed, GONE), (say("create 1 upopen carrier open"),)),
    "clone": Case(opened("clone", os.O_RDWR), (clone_closed,)),
    "ctl": Case(read("ctl"), (BOTH_GONE,), (ONE, say(f"create 2 netns {FAR}"))),
    "status": Case(read("status.json"), (NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "addresses": Case(read("virt1/ctl"), (GONE,), (ONE,)),
}


@asynccontextmanager
async def serving() -> AsyncIterator[Daemon]:
    """Run a daemon in the namespaces of this process."""
    with tempfile.TemporaryDirectory(dir=QUICK) as directory:
        state = Path(directory, "state")
        kernel = Kernel()
        async with supervised() as tasks:
            fifos = Fifos(tasks.start)
            made = service.Daemon(kernel, fifos, tasks, Limits(), StateFile(state), "")
            made.run_in(tasks)
            with Rtnl() as here, netns.inside(FAR_NAMESPACE, Rtnl) as far:
                yield Daemon(made, state, here, far)
            await made.commands.end()
            tasks.cancel()
    fifos.remove()
    kernel.close()


async def until(true: Callable[[], bool]) -> bool:
    """Wait until true() holds. Returns False if it does not within PATIENCE."""
    end = trio.current_time() + PATIENCE
    while not true():
        if trio.current_time() > end:
            return False
        await trio.sleep(0.02)
    return True


def count() -> int:
    """Return the number of open descriptors."""
    return len(os.listdir("/proc/self/fd"))


async def do(daemon: Daemon, steps: tuple[Step, ...]) -> None:
    for step in steps:
        await step(daemon)


async def attempt(daemon: Daemon, case: Case, what: str, trial: Callable[[], Awaitable[str]], done: str) -> None:
    """Try one failure, and add the faults found to the case.

    what: describes the failure in the faults
    trial: runs the request while a door fails; returns the error sentence, "" on success
    done: the picture after a successful request, as text
    """
    case.tried += 1
    await do(daemon, case.before)
    await daemon.made.follower.caught_up()
    before, descriptors_before = daemon.picture(), count()
    try:
        said = await trial()
    except Exception as failure:
        said = f"{type(failure).__name__}: {failure}"
        case.wrong.append(f"{what}: {said}")
    if said:
        if not await until(lambda: daemon.picture() == before):
            now = daemon.picture()
            changed = {key: (before[key], now[key]) for key in before if before[key] != now[key]}
            case.wrong.append(f"{what}: refused ({said}), yet {changed}")
        if not await until(lambda: count() <= descriptors_before):
            case.wrong.append(f"{what}: {count() - descriptors_before} descriptors lost ({said})")
        try:
            await case.what(daemon)
        except OSError as refusal:
            case.wrong.append(f"{what}: {said}; once more: {refusal}")
            return
    if not await until(lambda: alike(daemon.picture()) == done):
        case.wrong.append(f"{what}: done, yet {alike(daemon.picture())} and not {done}")
    await do(daemon, case.after)


async def refusal(work: Awaitable[None]) -> str:
    """Return the error sentence of a request that fails for lack of a resource, "" on success."""
    try:
        await work
    except OSError as refused:
        if refused.errno not in SHORT or not refused.strerror:
            raise AssertionError(f"errno {refused.errno}: {refused.strerror}") from refused
        return refused.strerror
    return ""


async def sweep(daemon: Daemon, case: Case, thorough: bool) -> None:
    """Try every failure of one case."""
    await do(daemon, case.before)
    with nth(0) as calls:
        await case.what(daemon)
    await daemon.made.follower.caught_up()
    done = alike(daemon.picture())
    await do(daemon, case.after)
    fired = ""
    for n in calls.worth_trying(thorough):

        async def one_fails(n: int = n) -> str:
            nonlocal fired
            with nth(n) as fault:
                try:
                    return await refusal(case.what(daemon))
                finally:
                    fired = fault.fired

        fired = ""
        known = len(case.wrong)
        await attempt(daemon, case, f"call {n}", one_fails, done)
        case.wrong[known:] = [f"{wrong} [{fired}]" for wrong in case.wrong[known:]]
    going, room = True, -1
    while going:
        room += 1

        async def full(room: int = room) -> str:
            nonlocal going
            with table(room):
                said = await refusal(case.what(daemon))
                going = bool(said)
                return said

        await attempt(daemon, case, f"{room} descriptors left", full, done)


async def main(names: list[str], thorough: bool) -> None:
    descriptors.reserve = lambda most: 0
    async with serving() as daemon:
        for name, case in CASES.items():
            if names and name not in names:
                continue
            try:
                await sweep(daemon, case, thorough)
            except BaseException as failure:
                case.wrong.append(f"{type(failure).__name__}: {failure}")
                raise
            finally:
                print(json.dumps([name, case.tried, case.wrong]), flush=True)


if __name__ == "__main__":
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/netns"], check=True)
    subprocess.run(["ip", "netns", "add", FAR], check=True)
    FAR_NAMESPACE = open_netns(FAR)
    NAMES = [word for word in sys.argv[1:] if word != "--thorough"]
    trio.run(main, NAMES, "--thorough" in sys.argv)
