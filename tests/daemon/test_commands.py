"""What commands change, and that refused commands change nothing."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Interface

import pytest
import trio
import trio.testing
from harness.in_trio import in_trio
from harness.waiting import PATIENCE

from virtfs.core.errors import VirtError
from virtfs.core.grammar import parse
from virtfs.core.ids import Gid, Uid, Unit, User
from virtfs.core.ip import IpInterface
from virtfs.core.limits import Limits
from virtfs.core.memory import Memory
from virtfs.core.script import Script
from virtfs.daemon.commands import at_once
from virtfs.daemon.errors_by_user import REMEMBERED
from virtfs.files.ctl import Ctl
from virtfs.files.device import DeviceHandle
from virtfs.files.node import ROOT
from virtfs.files.text import nothing
from virtfs.host.fakes import FakeTap
from virtfs.host.monitor import AddressChanged, Event

from .bench import ALICE, SUPER, Bench, daemon

TAPLINK = bytes.fromhex("0200000000bb")
ADDRESS = IPv4Interface("10.0.3.1/24")
FULL = (
    "mtu 1400 queue 100 backlog 5 strict exclusive none mode 0660 owner 12345 group 54321"
    " inet 10.0.3.1/24 inet6 fd00::1/64 up description a note # with a hash"
)


def refuse(what: str, error: int, value: object = None) -> Callable[[str, object], None]:
    """Return a function for Host.refuse that refuses one kind of change, with any value or only with `value`."""

    def check(asked: str, wanted: object) -> None:
        if asked == what and value in (None, wanted):
            raise VirtError(error, f"the kernel refuses {what}")

    return check


def picture(bench: Bench) -> object:
    """Return everything that a refused command must leave unchanged."""
    taps = bench.host.taps()
    return bench.names(), bench.ctl(), taps, dict(bench.host.links), dict(bench.host.assigned)


@in_trio
async def test_create_change_destroy() -> None:
    async with daemon() as bench:
        await bench.say("create 3")
        assert bench.names() == {"virt3", "tap3"}
        virt = bench.virt(3)
        assert (virt.host.up, virt.host.mtu, virt.host.queue, virt.mode) == (False, 1500, 256, 0o600)
        mac = virt.address
        assert (mac[:2], mac[3:]) == (b"\xb2\x0a", b"\x0b\x0e\x03")
        await bench.say("virt3 up mtu 1400 inet 10.0.3.1/24")
        assert (virt.host.up, virt.host.mtu) == (True, 1400)
        assert [str(a) for a in virt.host.addresses] == ["10.0.3.1/24"]
        await bench.say("destroy virt3")
        assert bench.names() == set()
        assert bench.host.taps() == set()
        assert await bench.refused("destroy 3") == errno.ENXIO
        assert await bench.refused("virt3 up") == errno.ENXIO


@in_trio
async def test_create_of_what_is_there_and_what_is_held() -> None:
    async with daemon() as bench:
        await bench.say("create 3 strict")
        before = picture(bench)
        assert await bench.refused("create 3") == errno.EEXIST
        bench.host.held_by_others.add("tap4")
        assert await bench.refused("create 4") == errno.EBUSY
        assert picture(bench) == before


@in_trio
async def test_lowest_free_unit() -> None:
    async with daemon() as bench:
        bench.host.held_by_others.add("tap1")
        bench.host.add("tap2")  # in use by another program
        for _ in range(3):
            await bench.say("create")
        assert bench.names() == {"virt0", "tap0", "virt3", "tap3", "virt4", "tap4"}
        await bench.say("destroy 3\ncreate")
        assert "virt3" in bench.names()
        assert "tap2" not in bench.host.held or bench.host.held["tap2"].fd < 0


@in_trio
async def test_ensure_twice_is_once() -> None:
    async with daemon() as bench:
        for _ in range(2):
            await bench.say(f"ensure 3 {FULL}")
            state = bench.ctl(bench.virt(3))
        assert bench.ctl(bench.virt(3)) == state
        await bench.say("ensure 3 mtu 1300")
        assert bench.virt(3).host.mtu == 1300
        assert bench.virt(3).strict, "ensure keeps attributes that its line does not name"


@in_trio
async def test_state_read_back_makes_the_same() -> None:
    async with daemon() as bench:
        await bench.say(f"create 3 {FULL}\ncreate 10\ncreate 4 link 02:00:00:00:00:aa taplink 02:00:00:00:00:bb")
        state = bench.ctl()
        assert [line.split()[1] for line in state.splitlines()] == ["3", "4", "10"]
        assert all(parse(line) is not None for line in state.splitlines())
        own = bench.ctl(bench.virt(3))
        assert "description a note # with a hash\n" in own
        await bench.say("destroy 3\ndestroy 4\ndestroy 10")
        assert bench.ctl() == ""
        await bench.say(state)
        assert bench.ctl() == state
        await bench.say(own, unit=3)
        assert bench.ctl() == state


@pytest.mark.parametrize(
    ("what", "value"),
    [("up", True), ("mtu", 1400), ("txqlen", 100), ("add_address", None), ("quiet", None), ("open", None)],
)
@pytest.mark.parametrize("command", ["create 3", "ensure 3", "create"])
def test_refused_creation_leaves_nothing(command: str, what: str, value: object) -> None:
    @in_trio
    async def run() -> None:
        async with daemon() as bench:
            await bench.say("create 7 mtu 1200")
            before = picture(bench)
            bench.host.refuse = refuse(what, errno.ENOMEM, value)
            assert await bench.refused(f"{command} {FULL}") == errno.ENOMEM
            assert picture(bench) == before

    run()


@pytest.mark.parametrize(
    ("what", "value"), [("up", True), ("mtu", 1400), ("txqlen", 100), ("add_address", ADDRESS), ("address", TAPLINK)]
)
def test_refused_change_is_taken_back(what: str, value: object) -> None:
    @in_trio
    async def run() -> None:
        async with daemon() as bench:
            await bench.say("create 3 mtu 1200 queue 50 inet 10.9.9.9/8 mode 0640")
            before = picture(bench)
            bench.host.refuse = refuse(what, errno.ENOMEM, value)
            line = f"virt3 link 02:00:00:00:00:aa -inet 10.9.9.9 taplink 02:00:00:00:00:bb {FULL}"
            assert await bench.refused(line) == errno.ENOMEM
            assert picture(bench) == before

    run()


@in_trio
async def test_a_failing_undo_does_not_keep_the_rest_from_being_undone() -> None:
    async with daemon() as bench:
        await bench.say("create 3")

        def once_gone(what: str, value: object) -> None:
            if what in ("up", "mtu") and value != 1400:
                raise VirtError(errno.ENOMEM if what == "up" else errno.EPERM, f"no {what}")

        bench.host.refuse = once_gone
        assert await bench.refused("virt3 strict backlog 9 mtu 1400 up") == errno.ENOMEM
        virt = bench.virt(3)
        assert (virt.strict, virt.backlog) == (False, 0)


@in_trio
async def test_a_line_is_checked_whole_before_anything_is_done() -> None:
    async with daemon(Limits(virts=2, queue=500, backlog=600)) as bench:
        await bench.say("create 3")
        before = picture(bench)
        touched: list[str] = []
        bench.host.refuse = lambda what, value: touched.append(what)
        for tail, error in (
            ("queue 501", errno.ERANGE),
            ("backlog 601", errno.ERANGE),
            ("mtu 67", errno.ERANGE),
            ("owner no-such-user-here", errno.EINVAL),
            ("group no-such-group-here", errno.EINVAL),
            ("frobnicate", errno.EINVAL),
        ):
            for head in ("virt3", "create 4", "ensure 4", "create"):
                assert await bench.refused(f"{head} mtu 1400 strict {tail}") == error, tail
        assert touched == []
        assert picture(bench) == before
        await bench.say("virt3 queue 500 backlog 600\ncreate 4")
        assert await bench.refused("create 5") == errno.ENOSPC
        assert await bench.refused("create") == errno.ENOSPC
        assert await bench.refused("ensure 5") == errno.ENOSPC
        await bench.say("ensure 4 strict")


@in_trio
async def test_a_foreign_digit_is_no_number() -> None:
    async with daemon() as bench:
        await bench.say("create 3")
        assert await bench.refused("virt3 owner \N{ARABIC-INDIC DIGIT THREE}") == errno.EINVAL


@in_trio
async def test_lines_run_up_to_the_first_that_is_refused() -> None:
    async with daemon() as bench:
        assert await bench.refused("create 1\n# a comment\n\ncreate 1 mtu 9\ncreate 2\n") == errno.ERANGE
        assert bench.names() == {"virt1", "tap1"}
        said = bench.last_error(SUPER)
        assert said.startswith("line 4: ")
        assert '"9"' in said
        assert await bench.refused("create 1") == errno.EEXIST
        assert not bench.last_error(SUPER).startswith("line")


@in_trio
async def test_unfinished_line_is_joined_or_told_of() -> None:
    async with daemon() as bench:
        script = Script()
        padding = "# padding\n" * 500
        await bench.say(padding + "crea", script=script)
        await bench.say("te 5\n", script=script)
        assert "virt5" in bench.names()
        run = partial(bench.daemon.commands.run, None)
        ctl = Ctl(ROOT, lambda user: "", run, bench.daemon.errors.report, nothing).open(SUPER, Memory())
        await ctl.write((padding + "create 6").encode(), at_once)
        ctl.release()
        assert '"create 6"' in bench.last_error(SUPER)
        assert "virt6" not in bench.names()
        with pytest.raises(VirtError):
            await bench.say("frobnicate\n" + padding + "create ", script=script)
        assert script.rest() == ""


@in_trio
async def test_root_alone_may() -> None:
    async with daemon() as bench:
        await bench.say("create 3 owner 1000")
        before = picture(bench)
        for line in ("create 4", "create", "ensure 3 up", "destroy 3", "virt3 up"):
            assert await bench.refused(line, ALICE) == errno.EPERM
        for verb in ("inet 10.0.0.1/8", "inet6 fd00::1/64", "-inet 10.0.0.1", "-inet6 fd00::1", "owner 1000",
                     "group 1000", "taplink 02:00:00:00:00:01"):  # fmt: skip
            assert await bench.refused(f"strict {verb}", ALICE, unit=3) == errno.EPERM
        assert picture(bench) == before
        await bench.say("\n# nothing\n", ALICE)
        verbs = "up mtu 1400 link 02:00:00:00:00:01 queue 9 backlog 1 strict exclusive none mode 0660"
        await bench.say(verbs, ALICE, unit=3)
        assert bench.virt(3).host.up


@in_trio
async def test_last_error_is_each_users_own_and_bounded() -> None:
    async with daemon() as bench:
        assert bench.last_error(ALICE) == "ok"
        await bench.refused("alices mistake", ALICE)
        await bench.refused("roots mistake")
        assert "alices" in bench.last_error(ALICE)
        assert "roots" in bench.last_error(SUPER)
        await bench.refused("x" * 5000 + "\n")
        assert len(bench.last_error(SUPER)) < 300
        for uid in range(2000, 2000 + 2 * REMEMBERED):
            await bench.refused("wrong", User(Uid(uid), Gid(uid), 3))
        assert len(bench.daemon.errors._errors) <= REMEMBERED
        assert "wrong" in bench.last_error(User(Uid(1999 + 2 * REMEMBERED), Gid(0), 9))
        assert bench.last_error(ALICE) == "ok"


@in_trio
async def test_values_written_to_files() -> None:
    async with daemon(Limits(backlog=10)) as bench:
        await bench.say("create 3")
        virt = bench.virt(3)

        async def put(file: str, text: str) -> int:
            try:
                await bench.daemon.commands.set_value(virt, file, text.encode(), ALICE)
            except VirtError as caught:
                refusal = caught
            else:
                return 0
            assert bench.last_error(ALICE) == refusal.strerror
            assert refusal.strerror.startswith(f"virt3/{file}: ")
            return refusal.errno

        assert await put("mtu", " 1400\n") == 0
        assert await put("up", "1\n") == 0
        assert await put("strict", "1") == 0
        assert await put("description", "a note\n") == 0
        assert (virt.host.mtu, virt.host.up, virt.strict, virt.description) == (1400, True, True, "a note")
        assert await put("description", "\n") == 0
        assert virt.description == ""
        assert await put("mtu", "1400 1500") == errno.EINVAL
        assert await put("up", "2") == errno.EINVAL
        assert await put("backlog", "11") == errno.ERANGE
        assert await put("mtu", "") == errno.EINVAL
        assert (virt.host.mtu, virt.host.up, virt.backlog) == (1400, True, 0)
        await bench.say("destroy 3")
        assert await put("mtu", "1400") == errno.ENXIO


@in_trio
async def test_chmod_and_chown() -> None:
    async with daemon() as bench:
        await bench.say("create 3")
        directory = bench.root.children["virt3"]
        frame, mtu = directory.children["frame"], directory.children["mtu"]  # type: ignore[attr-defined]
        virt = bench.virt(3)
        await bench.say(f"virt3 owner {ALICE.uid}")
        await bench.daemon.rights.set_mode(frame, 0o640, ALICE)
        assert virt.mode == 0o640
        assert mtu.permissions() == 0o644
        await bench.daemon.rights.set_owner(mtu, Uid(77), None, SUPER)
        await bench.daemon.rights.set_owner(directory, None, Gid(88), SUPER)
        assert (virt.owner, virt.group) == (77, 88)
        for call, error in (
            (bench.daemon.rights.set_mode(mtu, 0o644, SUPER), errno.EPERM),
            (bench.daemon.rights.set_mode(frame, 0o4600, SUPER), errno.EINVAL),
            (bench.daemon.rights.set_owner(frame, Uid(1), None, ALICE), errno.EPERM),
            (bench.daemon.rights.set_owner(bench.root.children["ctl"], Uid(1), None, SUPER), errno.EPERM),
        ):
            with pytest.raises(VirtError) as caught:
                await call
            assert caught.value.errno == error
        assert (virt.owner, virt.mode) == (77, 0o640)


@in_trio
async def test_attached_tap_is_left_as_found() -> None:
    async with daemon() as bench:
        bench.host.add("tap3")
        found = bench.host.links["tap3"]
        await bench.say(f"create 3 taplink 02:00:00:00:00:bb {FULL}")
        assert bench.host.links["tap3"] != found
        await bench.say("destroy 3")
        assert bench.host.links["tap3"] == found
        assert bench.host.assigned["tap3"] == ()


@in_trio
async def test_a_tap_that_cannot_be_put_back_is_let_go() -> None:
    async with daemon() as bench:
        bench.host.add("tap3")
        await bench.say("create 3 mtu 1400\ncreate 4")
        bench.host.refuse = refuse("mtu", errno.EPERM)
        await bench.daemon.commands.end()
        assert bench.names() == set()
        assert bench.host.taps() == {"tap3"}
        assert list(bench.registry) == []


@in_trio
async def test_lost_interface_can_be_destroyed_and_made_anew() -> None:
    async with daemon() as bench:
        await bench.say("create 3 up")
        bench.host.vanish("tap3")
        assert await bench.refused("virt3 mtu 1400") == errno.ENXIO
        await bench.refresh()
        for interface in bench.registry:
            interface.lose()
        assert await bench.refused("virt3 mtu 1300") == errno.ENXIO
        await bench.say("virt3 strict")
        await bench.say("destroy 3\ncreate 3 up")
        assert bench.virt(3).host.up


@in_trio
async def test_nothing_runs_after_the_end() -> None:
    async with daemon() as bench:
        await bench.say("create 3")
        virt = bench.virt(3)
        await bench.daemon.commands.end()
        assert await bench.refused("create 4") == errno.ENXIO
        with pytest.raises(VirtError) as caught:
            await bench.daemon.commands.run(virt, Script(), b"strict", ALICE)
        assert caught.value.errno == errno.ENXIO


@in_trio
async def test_a_long_script_lets_others_have_their_turn() -> None:
    """An owner who writes many lines must not keep the server from forwarding frames."""
    async with daemon() as bench:
        await bench.say("create 3 owner 1000")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for lines in ("#\n" * 500, "strict\n" * 500):
                turns = 0
                await bench.say(lines, ALICE, unit=3)
                assert turns > 100
            nursery.cancel_scope.cancel()


@in_trio
async def test_the_end_does_not_wait_for_a_long_script() -> None:
    async with daemon() as bench:
        await bench.say("create 3 owner 1000")
        outcome: list[int] = []

        async def owner() -> None:
            outcome.append(await bench.refused("up\n" * 5_000, ALICE, unit=3))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            await bench.daemon.commands.end()
        assert outcome == [errno.ENXIO]


@in_trio
async def test_a_refusal_at_the_last_close_ends_nothing_else() -> None:
    async with daemon() as bench:
        await bench.say("create 3 upopen")
        opening = bench.registry.get(Unit(3)).ports.frame.open(os.O_RDWR, ALICE)
        handle = opening if isinstance(opening, DeviceHandle) else await opening
        assert bench.virt(3).host.up
        bench.host.refuse = refuse("up", errno.ENOMEM)
        handle.release()
        await trio.testing.wait_all_tasks_blocked()
        await bench.say("virt3 strict")


@in_trio
async def test_no_report_of_a_storm_is_lost() -> None:
    async with daemon() as d:
        await d.say("create 1")
        index = d.virt(1).host.index
        addresses = [IPv4Interface(f"10.0.{number // 250}.{number % 250}/16") for number in range(400)]
        reports: list[Event] = [AddressChanged(None, index, address, True) for address in addresses]

        def drain() -> list[Event]:
            some = reports[:8]
            del reports[:8]
            return some

        d.monitor.drain = drain
        while reports:
            d.daemon.follower.catch_up()
        assert list(d.virt(1).host.addresses) == addresses
        d.monitor.drain = list


@in_trio
async def test_reports_that_cannot_be_read_fail_no_command(caplog: pytest.LogCaptureFixture) -> None:
    async with daemon() as d:

        def drain() -> list[Event]:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        d.monitor.drain = drain
        await d.say("create 1 mtu 1400")
        assert d.virt(1).host.mtu == 1400
        assert "checking all interfaces: [Errno 12]" in caplog.text
        d.monitor.drain = list


class Storm:
    """Reports about virt1 that arrive during queries about it, so that each answer is older than a report.

    queries: the number of queries that reports interrupt.
    """

    def __init__(self, bench: Bench, queries: int) -> None:
        self._bench = bench
        self._left = queries
        self._addresses = bench.host.addresses
        bench.host.addresses = self._during  # type: ignore[method-assign]

    def _during(self, tap: FakeTap) -> tuple[IpInterface, ...]:
        stale = self._addresses(tap)
        if self._left:
            self._left -= 1
            self._bench.host.assigned["tap1"] = (ADDRESS,)
            index = self._bench.virt(1).host.index
            reports: list[list[Event]] = [[AddressChanged(None, index, ADDRESS, True)]]
            self._bench.monitor.drain = lambda: reports.pop() if reports else []
            self._bench.daemon.follower.catch_up()
            self._bench.host.assigned["tap1"] = ()
        return stale


@in_trio
async def test_no_answer_older_than_a_report_is_applied() -> None:
    """If reports interrupt every query, a check follows, and until it succeeds the reports count."""
    async with daemon() as d:
        await d.say("create 1")
        follower, interface = d.daemon.follower, d.registry.get(Unit(1))
        for query in (follower.refresh, follower.look_for):
            d.virt(1).set_host(replace(d.virt(1).host, addresses=()))
            Storm(d, 30)
            await query(interface)
            assert d.virt(1).host.addresses == (ADDRESS,)
            assert not follower.up_to_date(), "a check must be pending"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.clear_doubts)
            with trio.fail_after(PATIENCE):
                while not follower.up_to_date():  # callers of caught_up() do not wait for a quiet moment
                    await trio.sleep(0.01)
            assert d.virt(1).host.addresses == (ADDRESS,)
            del d.host.addresses
            d.host.assigned["tap1"] = ()
            with trio.fail_after(PATIENCE):
                while d.virt(1).host.addresses:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
