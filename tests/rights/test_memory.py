"""Memory that one user can make the server hold: it is bounded, refused beyond, and given back at the close.

Each attack runs with the default limits, as a user who owns an interface. The peak of the server's memory is VmHWM of
proc_pid_status(5), which is reset before each attack (proc_pid_clear_refs(5)). `make attacks` runs longer attacks and
prints the peaks.
"""

import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.places import DIR
from harness.process import Process, fails
from harness.serving import PROJECT, Mount, Virt, Virts, frame
from harness.waiting import until

from virtfs.core.limits import Limits
from virtfs.core.memory import Kind
from virtfs.core.pcapng import section_header
from virtfs.fuse.inodes_handles import SPARE

from . import programs

ALICE, BOB = 4001, 4002
VIRTFS = f"PYTHONPATH={PROJECT} {sys.executable} -m virtfs"
MOST = 300 << 10  # KiB: limit on the server's resident memory
LONG = "mtu 65521 up owner 4001"
FRAME = 65000
SCALE = int(os.environ.get("ATTACKS", "1"))  # how many times as long the attacks are
PATIENCE = 60 * SCALE  # seconds


def resident(mount: Mount, field: str) -> int:
    """Return VmRSS or VmHWM of the server, in KiB."""
    status = Path(f"/proc/{mount.server.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1])  # type: ignore[index]


def memory(mount: Mount) -> dict[tuple[str, str], int]:
    """Return the file `memory`: bytes in use by user and kind."""
    rows = (line.split() for line in mount.read("memory").splitlines()[1:])
    return {(user, kind): int(now) for user, kind, now, _, _ in rows}


def held(mount: Mount, uid: int) -> int:
    """Return the number of bytes that a user holds."""
    return sum(size for (user, _), size in memory(mount).items() if user == str(uid))


def refused(mount: Mount, kind: Kind) -> int:
    """Return the number of refusals of a kind."""
    told: int = json.loads(mount.read("status.json"))["memory"][kind.label]["refused"]
    return told


@pytest.fixture
def alice(mount: Mount) -> Iterator[Process]:
    """A program of the attacker. Afterwards, nothing of hers is held."""
    process = mount.process(ALICE)
    yield process
    process.kill()
    mount.clean()
    until(lambda: held(mount, ALICE) == 0, "everything is given back")


def history(virts: Virts, alice: Process) -> Kind:
    virt = virts(f"{LONG} history 64M")
    number, error = alice.begin(programs.opens_between_floods, virt.name, FRAME, 500 * SCALE, 10).result(PATIENCE)
    assert (number < 10, error) == (True, errno.ENOBUFS)
    return Kind.CONTENTS


def delayed(virts: Virts, alice: Process) -> Kind:
    virt = virts(f"{LONG} impair out delay 1000s limit 65536")
    alice.begin(programs.floods, f"{virt.name}/frame", FRAME, 1500 * SCALE).result(PATIENCE)
    assert virt.count("tx_dropped") > 900
    return Kind.DELAYED


def small_delayed(virts: Virts, alice: Process) -> Kind:
    virt = virts(f"{LONG} impair out delay 1000s limit 65536 duplicate 100%")
    more = virts(f"{LONG} impair out delay 1000s limit 65536 duplicate 100%")
    for each in (virt, more):
        alice.begin(programs.floods, f"{each.name}/frame", 60, 4000 * SCALE).result(PATIENCE)
    return Kind.DELAYED


def backlog(virts: Virts, alice: Process) -> Kind:
    source, sink, other = virts(LONG), *(virts(f"{LONG} backlog 65536 queue 65536") for _ in range(2))
    source.mount.ctl(f"create bridge9 mtu 65521 up add {source.name} add {sink.name} add {other.name}")
    try:
        alice.call(programs.floods, f"{source.name}/frame", FRAME, 1000)
        until(lambda: refused(sink.mount, Kind.FRAMES) > 0, "the backlog is full")
    finally:
        source.mount.ctl("destroy bridge9")
    return Kind.FRAMES


def captures(virts: Virts, alice: Process) -> Kind:
    virt = virts(LONG)
    opening = alice.begin(programs.holds_opens, f"{virt.name}/pcap", os.O_RDONLY, 40)
    assert opening.result(PATIENCE) == (40, 0)
    alice.begin(programs.floods, f"{virt.name}/frame", FRAME, 800 * SCALE).result(PATIENCE)
    return Kind.CAPTURES


def texts(virts: Virts, alice: Process) -> Kind:
    virt = virts(LONG)
    _, error = alice.begin(programs.holds_texts, "status.json", 100 * SCALE).result(PATIENCE)
    assert error in (0, errno.ENOBUFS, errno.EMFILE)
    assert virt.read("mtu") == "65521"
    return Kind.CONTENTS


def directories(virts: Virts, alice: Process) -> Kind:
    times = min(500 * SCALE, 5000)
    opening = alice.begin(programs.holds_opens, virts(LONG).name, os.O_RDONLY | os.O_DIRECTORY, times)
    assert opening.result(PATIENCE) == ((times, 0) if times <= 4096 else (4096, errno.EMFILE))
    return Kind.OPENS


def unfinished_lines(virts: Virts, alice: Process) -> Kind:
    data = b"x" * 60000
    times = 200 * SCALE
    number, error = alice.begin(programs.holds_input, f"{virts(LONG).name}/ctl", data, times).result(PATIENCE)
    assert error == (0 if number == times else errno.ENOBUFS)
    assert number < 1200
    return Kind.INPUT


def unfinished_hex(virts: Virts, alice: Process) -> Kind:
    data = b"0" * 300000
    number, error = alice.begin(programs.holds_input, f"{virts(LONG).name}/hex", data, 1000).result(PATIENCE)
    assert number < 300
    assert error == errno.ENOBUFS
    return Kind.INPUT


def incomplete_captures(virts: Virts, alice: Process) -> Kind:
    """A block of 16 MiB that lacks its end, for each of three interfaces."""
    length = 16 << 20
    head = section_header("", "", "") + b"\x06\0\0\0" + length.to_bytes(4, "little")
    errors = [alice.call(programs.holds_block, f"{virts(LONG).name}/inject", head, length)[1] for _ in range(3)]
    assert errors == [0, errno.ENOBUFS, errno.ENOBUFS]
    return Kind.INPUT


def readers(virts: Virts, alice: Process) -> Kind:
    virt = virts(LONG)
    waiting = 500 * SCALE
    assert alice.begin(programs.waits, f"{virt.name}/wait/gone", 10, waiting // 10).result(PATIENCE) == waiting
    return Kind.REQUESTS


ATTACKS: tuple[Callable[[Virts, Process], Kind], ...] = (
    history,
    delayed,
    small_delayed,
    backlog,
    captures,
    texts,
    directories,
    unfinished_lines,
    unfinished_hex,
    incomplete_captures,
    readers,
)


@pytest.mark.timeout(120 * SCALE)
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.__name__ for attack in ATTACKS])
def test_an_attack(attack: Callable[[Virts, Process], Kind], virts: Virts, mount: Mount, alice: Process) -> None:
    """The server's memory stays bounded, another user is not affected, and the numbers are shown."""
    his = virts(f"up owner {BOB} backlog 8")
    bob = mount.process(BOB)
    Path(f"/proc/{mount.server.pid}/clear_refs").write_text("5")
    before = resident(mount, "VmRSS")
    kind = attack(virts, alice)
    peak = resident(mount, "VmHWM")
    print(f"\n{attack.__name__:20} RSS {before >> 10} MiB, peak {peak >> 10} MiB, held {held(mount, ALICE) >> 10} KiB")
    assert peak < MOST
    told = json.loads(mount.read("status.json"))["memory"][kind.label]
    assert 0 < held(mount, ALICE) <= Limits().user_memory
    assert told["highest"] >= told["bytes"] > 0
    assert f'virtfs_memory_bytes{{kind="{kind.label}",mount="/mnt/virt"}}' in mount.read("metrics")
    his.host_sends(frame())
    file = bob.open(f"{his.name}/frame")
    assert file.read() == frame()
    assert file.write(frame()) == 60
    assert his.host_gets() == frame()
    with fails(errno.EACCES):
        bob.open("memory", os.O_RDONLY)
    bob.open(f"{his.name}/ctl", os.O_WRONLY).write("mtu 1400\n")


def test_a_refusal_says_which_limit(virts: Virts, alone: Callable[[str], Mount]) -> None:
    """A user whose frames fill the limit can still open ctl and change that."""
    mount = alone("max_user_memory=1M,max_memory=4M")
    virt = Virt(mount, 3, f"{LONG} impair out delay 1000s limit 65536")
    alice = mount.process(ALICE)
    alice.call(programs.floods, "virt3/frame", 1000, 2000)
    assert virt.count("tx_dropped") > 1000
    assert 300_000 < held(mount, ALICE) <= 1 << 20
    number, error = alice.call(programs.holds_input, "virt3/hex", b"0" * 200000, 10)
    assert (0 < number < 10, error) == (True, errno.ENOBUFS)
    said = alice.call(programs.reads, "last_error")
    assert re.fullmatch(
        r"virt3/hex: no memory for \d+ more bytes of input: user 4001 holds \d+ of 1048576 bytes"
        r" \(mount option max_user_memory\)\n",
        said,
    )
    ctl = alice.open("virt3/ctl", os.O_WRONLY)
    ctl.write("down\nup\n-impair\n")
    assert memory(mount).get(("4001", "delayed"), 0) == 0
    options = json.loads(mount.read("status.json"))["limits"]
    assert (options["memory"], options["user_memory"]) == (4 << 20, 1 << 20)
    alice.close()
    mount.ctl("destroy 3")
    until(lambda: held(mount, ALICE) == 0, "everything is given back")


def test_a_user_cannot_have_more_than_all_users_together(alone: Callable[[str], Mount]) -> None:
    options = "max_memory=4M,max_user_memory=1G"
    mount = alone(options)
    limits = json.loads(mount.read("status.json"))["limits"]
    assert (limits["memory"], limits["user_memory"]) == (4 << 20, 4 << 20)
    said = "warning: max_user_memory is 4M instead of 1G: it cannot exceed max_memory"
    assert any(said in line for line in mount.log), "logged at the start"
    mount.sh(f"cd /; {VIRTFS} mount {DIR} -o remount,noatime,{options}")
    assert mount.refused(f"cd /; {VIRTFS} mount {DIR} -o remount,max_memory=4M,max_user_memory=3M").endswith(
        f'cannot change "max_user_memory=4M" to "max_user_memory=3M" while "{DIR}" is mounted: '
        f'run "virtfs umount {DIR}", then mount it again\n'
    )


def test_a_lower_limit_for_all_users_is_one_for_each(alone: Callable[[str], Mount]) -> None:
    mount = alone("max_memory=4M")
    assert json.loads(mount.read("status.json"))["limits"]["user_memory"] == 4 << 20
    assert not any("max_user_memory" in line for line in mount.log), "nobody has asked for more"


def test_a_history_that_a_user_cannot_keep_is_refused(alone: Callable[[str], Mount]) -> None:
    """A user may keep a third of max_user_memory. Root's interfaces have no such limit, whoever sets the size."""
    mount = alone("max_user_memory=3M")
    Virt(mount, 3, LONG)
    Virt(mount, 4, "mode 666")
    alice = mount.process(ALICE)
    with fails(errno.ENOBUFS):
        alice.open("virt3/ctl", os.O_WRONLY).write("history 4M\n")
    assert "at most 1048576 bytes, not 4194304" in alice.call(programs.reads, "last_error")
    assert mount.read("virt3/history_size") == "0"
    alice.open("virt3/ctl", os.O_WRONLY).write("history 1M\n")
    alice.open("virt4/ctl", os.O_WRONLY).write("history 4M\n")
    assert [mount.read(f"virt{n}/history_size") for n in (3, 4)] == ["1M", "4M"]


def test_the_smallest_limits_are_useful(alone: Callable[[str], Mount]) -> None:
    """A user can write a line of 64 KiB, capture and get a frame of 64 KiB, and read a report."""
    mount = alone("max_user_memory=512K,max_memory=1M")
    virt = Virt(mount, 3, f"{LONG} backlog 1")
    alice = mount.process(ALICE)
    alice.open("virt3/ctl", os.O_WRONLY).write("strict " * 200 + "#" * 60000 + "\n")
    capture = alice.open("virt3/pcap", os.O_RDONLY)
    virt.host_sends(frame(FRAME))
    assert alice.open("virt3/frame", os.O_RDONLY).read() == frame(FRAME)
    taken = 0
    while taken < 16384:  # the ring is small, so the frame is cut
        taken += len(capture.read())
    assert alice.call(programs.reads, "status.json")


def test_last_error_can_be_read_by_a_user_who_has_reached_a_limit(alone: Callable[[str], Mount]) -> None:
    mount = alone("max_user_memory=512K")
    Virt(mount, 3, f"up owner {ALICE}")
    for flags, path, number, said in (
        (os.O_RDONLY | os.O_DIRECTORY, ".", errno.ENOBUFS, "no memory for 4096 more bytes of opens"),
        (os.O_RDONLY, "events", errno.ENOBUFS, "events: no memory for 4096 more bytes of opens"),
    ):
        alice = mount.process(ALICE)
        assert alice.call(programs.holds_opens, path, flags, 1000)[1] == number
        assert alice.call(programs.reads, "last_error").startswith(said)
        assert alice.call(programs.opens, "virt3/mtu", os.O_RDONLY) == number
        held_now = alice.call(programs.holds_opens, "last_error", os.O_RDONLY, 1000)
        assert held_now == (SPARE, number)
        alice.kill()
        until(lambda: held(mount, ALICE) == 0, "everything is given back")


@pytest.mark.parametrize("words", ["ctl virt3 mtu 1400", "ls"])
def test_commands_say_which_limit_a_user_has_reached(alone: Callable[[str], Mount], words: str) -> None:
    mount = alone("max_user_memory=512K")
    Virt(mount, 3, f"up owner {ALICE}")
    alice = mount.process(ALICE)
    assert alice.call(programs.holds_opens, "events", os.O_RDONLY, 1000)[1] == errno.ENOBUFS
    verb, *rest = words.split()
    said = mount.sh(f"cd /; {VIRTFS} {verb} -d {DIR} {' '.join(rest)} 2>&1; echo status $?", uid=ALICE)
    assert re.search(r"no memory for 4096 more bytes of opens: user 4001 .* \(mount option max_user_memory\)", said)
    assert said.endswith("status 1\n")
    alice.kill()


def test_last_error_can_be_read_by_a_user_with_the_most_open_files(virts: Virts, mount: Mount, alice: Process) -> None:
    virts(LONG)
    opening = alice.begin(programs.holds_opens, "events", os.O_RDONLY, 5000)
    assert opening.result(PATIENCE) == (4096, errno.EMFILE)
    assert "close some first" in alice.call(programs.reads, "last_error")


def test_a_queue_in_the_kernel(virts: Virts, mount: Mount) -> None:
    """The tap's queue is the kernel's memory, so an owner may not make it as long as the verbs allow."""
    virt = virts(f"mtu 9000 owner {ALICE}")
    ctl = mount.process(ALICE).open(f"{virt.name}/ctl", os.O_WRONLY)
    ctl.write("queue 6000\n")
    for line in ("queue 65536", "mtu 65521", "queue 7000 mtu 9001"):
        with fails(errno.ENOBUFS):
            ctl.write(f"{line}\n")
    assert (virt.read("queue"), virt.read("mtu")) == ("6000", "9000")
    ctl.write("queue 256 mtu 65521\n")
    virt.set("queue 65536")
