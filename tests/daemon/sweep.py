"""Run users' requests, making each function that reaches the kernel fail in turn, with each errno that it can give.

This is a program, which runs in namespaces of its own. It prints one line of JSON for each case: its name, the number
of calls of doors, the number of failures tried, their errnos, and the faults found.
Arguments: the cases to try (default: all). --sample COUNT SEED tries only COUNT random failures of each case. --table
prints a table instead, and runs several cases at a time: --workers COUNT, by default one on each processor.
"""

import json
import logging
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, asynccontextmanager
from contextlib import closing as closes
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trio
from harness.waiting import PATIENCE

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, Unit, User
from virtfs.core.limits import Limits
from virtfs.core.loan import Request
from virtfs.core.memory import Memory
from virtfs.core.script import Script
from virtfs.daemon import fifos, service
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.loans import Loan
from virtfs.daemon.statefile import StateFile
from virtfs.files.device import DeviceFile, DeviceHandle
from virtfs.files.node import Directory
from virtfs.files.text import Text
from virtfs.forward import tasks
from virtfs.forward.supervisor import supervised
from virtfs.forward.tasks import only
from virtfs.host import descriptors, netns
from virtfs.host.netnames import open_netns
from virtfs.host.peers import Peer

from .doors import NO_ERRNO, Calls, Failure, failing, table
from .seen import Seen
from .seen import descriptors as count

SUPER = User(Uid(0), Gid(0), 1)
LIMIT = 60  # time limit of one failure, in seconds
FAR = "far"
QUICK = "/run"  # a tmpfs of this process


class Daemon:
    """A daemon without a mount."""

    def __init__(self, made: service.Daemon, state: Path, here: Seen, far: Seen) -> None:
        self.made = made
        self.root = made.root
        self._here = here
        self._far = far
        self.state = state
        self._open: list[DeviceHandle] = []
        self.loan: Loan | None = None

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
        handle = text.open(SUPER, Memory())
        await handle.renew()
        assert handle.read(0, 1 << 20)

    def picture(self) -> dict[str, object]:
        """Return everything that a failed request must leave unchanged."""
        return {
            "tree": sorted(name for name in self.root.children if name.startswith(("virt", "tap"))),
            "bridges": sorted(self.made.bridges.directory.children),
            "ctl": self.made.state.text(),
            "here": self._here.links(),
            "far": self._far.links(),
        }

    def interfaces(self) -> set[str]:
        """Return the names of all interfaces in the kernel, in both namespaces."""
        return {link.split()[0] for link in (*self._here.links(), *self._far.links())}


def alike(picture: dict[str, object]) -> str:
    """Return a picture as text, without MAC addresses and the kernel's own IPv6 addresses, which differ."""

    def masked(text: str) -> str:
        text = re.sub("([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
        return re.sub(" inet6 fe80::[^ ]*", "", text)

    return json.dumps({
        part: sorted(map(masked, shown)) if isinstance(shown, list) else masked(str(shown))
        for part, shown in picture.items()
    })  # fmt: skip


def differences(wanted: str, now: str) -> str:
    """Return the parts in which two pictures, as text, differ."""
    before, after = json.loads(wanted), json.loads(now)
    parts = (f"{part}: {after[part]!r} instead of {before[part]!r}" for part in before if before[part] != after[part])
    return "; ".join(parts)


def kernel_says() -> str:
    """Return what ip(8) shows about all interfaces here and in FAR, with all settings of bridges and their ports."""
    told = []
    for where in ((), ("-n", FAR)):
        for about in ("link", "address"):
            line = ("ip", *where, "-d", "-o", about, "show")
            shown = subprocess.run(line, check=False, capture_output=True, text=True)
            rows = (f"        {row}" for row in (shown.stdout + shown.stderr).splitlines() if " lo" not in row)
            told += [f"      {' '.join(line)}", *rows]
    return "\n".join(told)


Step = Callable[[Daemon], Awaitable[None]]


@dataclass(frozen=True)
class Said:
    """A step that writes lines to ctl. As text, it is these lines."""

    lines: str

    def __str__(self) -> str:
        return self.lines.replace("\n", "; ")

    async def __call__(self, daemon: Daemon) -> None:
        await daemon.say(self.lines)


def say(text: str) -> Step:
    return Said(text)


def opened(path: str, flags: int = os.O_RDONLY) -> Step:
    return lambda daemon: daemon.open(path, flags)


def read(path: str) -> Step:
    return lambda daemon: daemon.read(path)


async def closed(daemon: Daemon) -> None:
    await daemon.close()


def given(request: Request) -> Step:
    """Return a step that gives the tap of virt1 to a program."""

    async def give(daemon: Daemon) -> None:
        interface = daemon.made.registry.get(Unit(1))
        daemon.loan = await daemon.made.loans.give(interface, request, Peer(1, Uid(0), Gid(0), ()), lambda: False, int)

    return give


async def taken_back(daemon: Daemon) -> None:
    assert daemon.loan is not None
    await daemon.made.loans.take_back(daemon.loan)


def taps() -> list[str]:
    """Return the names of the taps in this network namespace."""
    return [name for _, name in socket.if_nameindex() if name.startswith("tap")]


async def clone_closed(daemon: Daemon) -> None:
    """Close clone and wait until its interface and its tap are gone. The interface leaves ctl first."""
    await daemon.close()
    assert await until(lambda: daemon.made.state.text() == "" and not taps()), "the interface of clone remains"


@dataclass
class Case:
    """A request to try.

    what: the request, which runs while doors fail
    after: the steps that undo the request and the set-up
    before: the steps that set up the state
    wrong: the faults found
    calls: the number of calls of doors
    tried: the number of failures tried
    errnos: the names of their errnos
    """

    what: Step
    after: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    tried: int = 0
    errnos: set[str] = field(default_factory=set)


ONE = say("create 1 up inet 10.0.1.1/24")
TWO = say("create 2 up")
GONE = say("destroy 1")
BOTH_GONE = say("destroy 1\ndestroy 2")
NO_BRIDGE = say("destroy bridge0")


async def BRIDGE(daemon: Daemon) -> None:
    """Create a bridge whose MAC address does not come from its ports."""
    await daemon.say("create bridge0 up")
    subprocess.run(["ip", "link", "set", "bridge0", "address", "02:00:00:00:00:01"], check=True)


async def LOST_BRIDGE(daemon: Daemon) -> None:
    """Create a bridge with a port, and delete it as another program does."""
    await daemon.say("create bridge0 up add tap1 inet 10.7.7.1/24\nbridge0 -learn tap1")
    subprocess.run(["ip", "link", "del", "bridge0"], check=True)
    await daemon.made.bridge_follower.refresh(None)
    await daemon.made.follower.caught_up()


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
    "unplug": Case(say("virt1 carrier off"), (GONE,), (say("create 1 up history 64K filter icmp"),)),
    "check": Case(say(f"check virt1 filter tcp port 80\ncheck create 2 netns {FAR}"), (GONE,), (ONE,)),
    "owner": Case(say("virt1 owner daemon group daemon"), (GONE,), (ONE,)),
    "destroy": Case(GONE, (), (ONE,)),
    "bridge": Case(say("create bridge0 up add tap1 inet 10.7.7.1/24"), (NO_BRIDGE, GONE), (ONE,)),
    "bridge add": Case(say("bridge0 add tap1 adopt maxage 20 -learn tap1"), (NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "virt bridge": Case(say("virt1 bridge bridge0"), (say("virt1 -bridge"), NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "bridge destroy": Case(NO_BRIDGE, (GONE,), (ONE, say("create bridge0 up add tap1"))),
    "bridge again": Case(say("ensure bridge0 maxage 20"), (NO_BRIDGE, GONE), (ONE, LOST_BRIDGE)),
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
    "fd": Case(given(Request()), (taken_back, GONE), (ONE,)),
    "fd without header": Case(given(Request(header=False)), (taken_back, GONE), (ONE,)),
    "fd lent": Case(given(Request(lend=True)), (taken_back, GONE), (ONE,)),
    "clone": Case(opened("clone", os.O_RDWR), (clone_closed,)),
    "ctl": Case(read("ctl"), (BOTH_GONE,), (ONE, say(f"create 2 netns {FAR}"))),
    "status": Case(read("status.json"), (NO_BRIDGE, GONE), (ONE, BRIDGE)),
    "addresses": Case(read("virt1/ctl"), (GONE,), (ONE,)),
}


@asynccontextmanager
async def serving() -> AsyncIterator[Daemon]:
    """Run a daemon in the namespaces of this process. OSError: it cannot start."""
    with ExitStack() as closing:
        directory = closing.enter_context(tempfile.TemporaryDirectory(dir=QUICK))
        kernel = Kernel()
        closing.callback(kernel.close)
        async with supervised() as supervisor:
            try:
                made_fifos = Fifos(supervisor.start)
                closing.callback(made_fifos.remove)
                state = Path(directory, "state")
                file = StateFile(state)
                closing.callback(file.close)
                made = service.Daemon(kernel, made_fifos, supervisor, Limits(), file, "", "")
                made.run_in(supervisor)
                here = closing.enter_context(closes(Seen()))
                far = closing.enter_context(closes(netns.inside(FAR_NAMESPACE, Seen)))
                try:
                    yield Daemon(made, state, here, far)
                finally:
                    with trio.CancelScope(shield=True):
                        await made.commands.end()
            finally:
                supervisor.cancel()


async def until(true: Callable[[], bool]) -> bool:
    """Wait until true() holds. Returns False if it does not within PATIENCE."""
    end = trio.current_time() + PATIENCE
    while not true():
        if trio.current_time() > end:
            return False
        await trio.sleep(0.02)
    return True


async def do(daemon: Daemon, steps: tuple[Step, ...]) -> None:
    for step in steps:
        await step(daemon)


async def attempt(daemon: Daemon, case: Case, what: str, trial: Callable[[], Awaitable[str]], course: "Course") -> None:
    """Try one failure within LIMIT seconds."""
    with trio.move_on_after(LIMIT) as limit:
        await _attempt(daemon, case, what, trial, course.done, course.empty)
    if limit.cancelled_caught:
        case.wrong.append(f"{what}: the request or the way back hangs ({case.what})")
        raise AssertionError(f"{what} hangs")


async def _attempt(
    daemon: Daemon, case: Case, what: str, trial: Callable[[], Awaitable[str]], done: str, empty: str
) -> None:
    """Try one failure, and add the faults found to the case.

    what: describes the failure in the faults
    trial: runs the request while a door fails; returns the error sentence, "" on success
    done: the picture after a successful request, as text
    empty: the picture before and after everything, as text
    """
    case.tried += 1
    interfaces = daemon.interfaces()
    await do(daemon, case.before)
    await daemon.made.follower.caught_up()
    before, descriptors_before, existing = daemon.picture(), count(), daemon.interfaces()
    try:
        said = await trial()
    except Exception as failure:
        said = f"{type(failure).__name__}: {failure}"
        case.wrong.append(f"{what}: {said}")
    if said:
        if extra := daemon.interfaces() - existing:
            case.wrong.append(f"{what}: ({case.what}) is refused ({said}) before {extra} has left the kernel")
        if not await until(lambda: daemon.picture() == before):
            changed = differences(json.dumps(before), json.dumps(daemon.picture()))
            case.wrong.append(f"{what}: ({case.what}) is refused ({said}), yet {changed}\n{kernel_says()}")
        if not await until(lambda: count() <= descriptors_before):
            case.wrong.append(f"{what}: {count() - descriptors_before} descriptors lost ({said})")
        try:
            await case.what(daemon)
        except OSError as refusal:
            case.wrong.append(f"{what}: {said}; once more: {refusal}")
            return
    if not await until(lambda: alike(daemon.picture()) == done):
        changed = differences(done, alike(daemon.picture()))
        case.wrong.append(f"{what}: ({case.what}) is done, yet {changed}\n{kernel_says()}")
    await do(daemon, case.after)
    if extra := daemon.interfaces() - interfaces:
        case.wrong.append(f"{what}: ({case.what}) is undone before {extra} has left the kernel")
    if not await until(lambda: alike(daemon.picture()) == empty):
        changed = differences(empty, alike(daemon.picture()))
        case.wrong.append(f"{what}: ({case.what}) is undone, yet {changed}\n{kernel_says()}")


async def refusal(work: Awaitable[None]) -> str:
    """Return the error sentence of a request that fails, "" on success."""
    try:
        await work
    except OSError as refused:
        if not refused.errno or not refused.strerror:
            raise AssertionError(f"errno {refused.errno}: {refused.strerror}") from refused
        return refused.strerror
    return ""


@dataclass
class Course:
    """The failures of one case that are still to be tried.

    empty, done: the pictures before everything and after a successful request, as text. room: the number of descriptors
    left in the next attempt, -1 once the request has succeeded with so few.
    """

    empty: str
    done: str
    failures: list[Failure]
    room: int
    step: int


async def prepare(daemon: Daemon, case: Case, sample: int, chance: random.Random) -> Course:
    """Run the request once, and choose the failures to try: all of them, or `sample` ones if that is not 0."""
    empty = alike(daemon.picture())
    await do(daemon, case.before)
    with failing() as calls:
        await case.what(daemon)
    await daemon.made.follower.caught_up()
    case.calls = calls.times.total()
    done = alike(daemon.picture())
    await do(daemon, case.after)
    assert await until(lambda: alike(daemon.picture()) == empty)
    failures = calls.failures()
    if sample:
        return Course(empty, done, chance.sample(failures, min(sample, len(failures))), chance.randrange(4), -1)
    return Course(empty, done, failures, 0, 1)


async def proceed(daemon: Daemon, case: Case, course: Course) -> None:
    """Try failures until one of them finds a fault, or none is left."""
    known = len(case.wrong)
    while course.failures and len(case.wrong) == known:
        failure = course.failures.pop()
        case.errnos.add(failure.errno)

        async def one_fails(failure: Failure = failure) -> str:
            with failing(failure):
                return await refusal(case.what(daemon))

        await attempt(daemon, case, str(failure), one_fails, course)
    while course.room >= 0 and len(case.wrong) == known:
        room, course.room = course.room, course.room + 1

        async def full(room: int = room) -> str:
            with table(room):
                said = await refusal(case.what(daemon))
                if not said or course.step < 0:
                    course.room = -1
                return said

        await attempt(daemon, case, f"{room} descriptors left", full, course)


async def sweep(case: Case, sample: int, chance: random.Random) -> None:
    """Try the failures of one case. After a fault, go on with a new daemon."""
    course = None
    while course is None or course.failures or course.room >= 0:
        known = len(case.wrong)
        try:
            async with serving() as daemon:
                if course is None:
                    course = await prepare(daemon, case, sample, chance)
                await daemon.made.state.keep()  # takes the descriptor that locks the state file
                await proceed(daemon, case, course)
        except Exception as failure:
            if course is None:
                raise
            if len(case.wrong) == known:
                case.wrong.append(f"{type(only(failure)).__name__}: {only(failure)}")
        clean()


def clean() -> None:
    """Delete the interfaces that a fault has left."""
    for _, name in socket.if_nameindex():
        if name != "lo":
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


REPLAYED = f"""\
create bridge0 up inet 10.7.7.1/24
create 1 up mtu 1400 inet 10.0.1.1/24 impair delay 1ms history 64K
create 2 up netns {FAR}
create 3 bridge bridge0 persist
cable 1 3
"""


async def start(daemon: Daemon) -> None:
    """Do nothing more than serving() does."""


async def replay(daemon: Daemon) -> None:
    """Recreate saved interfaces. A line that fails must be kept as a comment."""
    await daemon.made.commands.replay.run(REPLAYED)
    shown = daemon.made.state.text()
    for line in REPLAYED.splitlines():
        target = " ".join(line.split()[:2])
        if f"\n{target}" not in f"\n{shown}" and f"# not replayed: {line}" not in shown:
            raise AssertionError(f"{line} is lost: {shown}")


async def let_go(daemon: Daemon) -> None:
    """Let the persistent tap end with the daemon."""
    await daemon.say("ensure 3 -persist")


async def full(daemon: Daemon) -> None:
    """Make interfaces, a bridge and a cable."""
    await daemon.say(REPLAYED.replace(" persist", ""))


@dataclass
class Life:
    """The life of a daemon, of which a part runs while doors fail: its start, a replay or its end.

    before: runs first, without failures. what: runs with failures. after: runs next, without failures.
    whole: whether the start fails too. end: whether the end fails too.
    """

    what: Step
    before: Step = start
    after: Step = start
    whole: bool = False
    end: bool = False
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    tried: int = 0
    errnos: set[str] = field(default_factory=set)


LIVES = {
    "start of a mount": Life(start, whole=True),
    "replay": Life(replay, after=let_go),
    "end of a mount": Life(start, full, end=True),
}


async def live(life: Life, failure: Failure | None) -> Calls:
    """Run a daemon from its start to its end. OSError: it has not started."""
    with ExitStack() as doors:
        calls = doors.enter_context(failing(failure)) if life.whole else Calls(None)
        async with serving() as daemon:
            doors.close()
            await life.before(daemon)
            with failing(failure) as within:
                await life.what(daemon)
                if life.end:
                    await daemon.made.commands.end()
            await life.after(daemon)
    return calls if life.whole else within


async def sweep_life(life: Life, sample: int, chance: random.Random) -> None:
    """Try the failures of a daemon's start, replay or end. Afterwards nothing may be left."""
    calls = await live(life, None)
    life.calls = calls.times.total()
    failures = calls.failures()
    for failure in chance.sample(failures, min(sample, len(failures))) if sample else failures:
        life.tried += 1
        life.errnos.add(failure.errno)
        before = count()
        try:
            with trio.fail_after(LIMIT):
                await live(life, failure)
        except Exception as group:
            fault = only(group)
            if not (life.whole and isinstance(fault, OSError) and fault.strerror):
                life.wrong.append(f"{failure}: {type(fault).__name__}: {fault}")
        left = [name for _, name in socket.if_nameindex() if name != "lo"]
        for path in Path("/run").glob(f"{fifos.PREFIX}*"):
            left.append(str(path))
            shutil.rmtree(path)
        if left:
            life.wrong.append(f"{failure}: left behind: {left}")
        if (lost := count() - before) > 0:
            life.wrong.append(f"{failure}: {lost} descriptors lost")
        clean()


async def main(names: list[str], sample: int, seed: str) -> None:
    descriptors.reserve = lambda most: 0
    tasks.FIRST, tasks.LONGEST, fifos.PAUSE = 0.01, 0.05, 0.05  # a failed task soon tries again
    for name, case in CASES.items():
        if not names or name in names:
            await sweep(case, sample, random.Random(f"{name} {seed}"))
            tell(name, case)
    for name, life in LIVES.items():
        if not names or name in names:
            await sweep_life(life, sample, random.Random(f"{name} {seed}"))
            tell(name, life)


def tell(name: str, case: Case | Life) -> None:
    """Print the result of a case as JSON."""
    print(json.dumps([name, case.calls, case.tried, sorted(case.errnos), case.wrong]), flush=True)


# Its own network and mount namespaces: the cases create tap1, bridge0 and so on.
COMMAND = ("unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-m", "daemon.sweep")


class Result(NamedTuple):
    """What tell() prints about a case."""

    name: str
    calls: int
    tried: int
    errnos: list[str]
    wrong: list[str]

    def __str__(self) -> str:
        row = f"{self.name:20} {self.calls:7} {self.tried:7} {len(self.wrong):7}"
        return "\n    ".join((row, *self.wrong))


def swept(name: str, *sample: str) -> Result:
    """Run one case in a process of its own, and return its result."""
    told = subprocess.run((*COMMAND, *sample, name), check=False, capture_output=True, text=True)
    return Result(*json.loads(told.stdout)) if not told.returncode else Result(name, 0, 0, [], [told.stderr])


def show_table(names: list[str], workers: int, *sample: str) -> None:
    """Run cases, `workers` at a time, and print a table of the results with their total."""
    print(f"{'case':20} {'calls':>7} {'tried':>7} {'faults':>7}", flush=True)
    results = []
    with ThreadPoolExecutor(workers) as pool:
        for future in as_completed([pool.submit(swept, name, *sample) for name in names]):
            results.append(future.result())
            print(results[-1], flush=True)
    calls, tried = sum(result.calls for result in results), sum(result.tried for result in results)
    print(f"{f'{len(names)} cases':20} {calls:7} {tried:7} {sum(len(result.wrong) for result in results):7}")
    errnos = {errno for result in results for errno in result.errnos if errno != NO_ERRNO}
    print(f"{len(errnos)} errnos: {' '.join(sorted(errnos))}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    words = sys.argv[1:]
    with_table = "--table" in words
    names = [word for word in words if word in CASES or word in LIVES]
    SAMPLE, SEED = 0, ""
    if "--sample" in words:
        at = words.index("--sample")
        SAMPLE, SEED = int(words[at + 1]), words[at + 2]
        del words[at : at + 3]
    workers = len(os.sched_getaffinity(0))
    if "--workers" in words:
        at = words.index("--workers")
        workers = int(words[at + 1])
        del words[at : at + 2]
    if unknown := [word for word in words if word not in names and word != "--table"]:
        sys.exit(f"there is no case {unknown[0]!r}: {', '.join((*CASES, *LIVES))}")
    if with_table:
        show_table(names or [*CASES, *LIVES], workers, *(("--sample", str(SAMPLE), SEED) if SAMPLE else ()))
    else:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        subprocess.run(["ip", "netns", "add", FAR], check=True)
        FAR_NAMESPACE = open_netns(FAR)
        trio.run(main, names, SAMPLE, SEED)
