"""virtN/fd: a program gets the tap itself, and virtfs takes it back."""

import errno
import json
import os
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness import borrowing
from harness.places import DIR
from harness.process import Process, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until

PLAIN = {"vnet_hdr": 0}
HEADER = bytes(10)
DAEMON = 1


class Loan:
    """A connection of a process, and the descriptor that it got."""

    def __init__(self, virt: Virt, request: dict[str, Any] | None = None, process: Process | None = None) -> None:
        self.process = process or virt.mount.root
        message = json.dumps(request or {}).encode()
        self.connection, self.answer, self.tap = self.process.call(borrowing.ask, virt.name, message)

    def read(self) -> bytes:
        return self.process.call(os.read, self.tap, 4096)

    def write(self, data: bytes) -> None:
        self.process.call(os.write, self.tap, data)

    def close(self) -> None:
        """Close the descriptor and then the connection."""
        if self.tap >= 0:
            self.process.call(os.close, self.tap)
        self.process.call(os.close, self.connection)


def refusal(virt: Virt, request: object = None, process: Process | None = None) -> tuple[int, str]:
    """Return the errno and the sentence of a refused request. It is also the last error of its user."""
    process = process or virt.mount.root
    message = request if isinstance(request, bytes) else json.dumps(request or {}).encode()
    connection, answer, tap = process.call(borrowing.ask, virt.name, message)
    process.call(os.close, connection)
    assert tap == -1
    assert answer["error"].startswith(f"{virt.name}/fd: ")
    return answer["errno"], answer["error"]


def returned(virt: Virt) -> None:
    """Wait until virtfs has the tap again, and check that frames pass."""
    until(lambda: " fd " not in virt.read("clients"), "the tap is back")
    file = virt.open()
    virt.listen()
    virt.host_sends(frame(70))
    assert file.read() == frame(70)
    file.write(frame(80))
    assert virt.host_gets() == frame(80)
    file.close()


@pytest.mark.parametrize(("request_", "header"), [({}, HEADER), (PLAIN, b"")], ids=["header", "plain"])
def test_frames_both_ways(virt: Virt, request_: dict[str, int], header: bytes) -> None:
    loan = Loan(virt, request_)
    assert loan.answer == {
        "name": virt.name,
        "tap": virt.tap,
        "address": virt.read("address"),
        "mtu": 1500,
        "vnet_hdr": len(header),
    }
    virt.host_sends(frame(60), frame(1514))
    assert (loan.read(), loan.read()) == (header + frame(60), header + frame(1514))
    loan.write(header + frame(99))
    assert virt.host_gets() == frame(99)
    assert loan.process.call(os.get_blocking, loan.tap), "as after open(2) of /dev/net/tun"
    loan.close()
    returned(virt)


def test_others_meanwhile(virts: Virts) -> None:
    """No other program can read frames. Others can write, and captures go on."""
    virt, other = virts(), virts()
    capture = virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY)
    loan = Loan(virt)
    for name in ("frame", "hex", "stream", "rx"):
        for exclusive in ("none", "read"):
            virt.write("exclusive", exclusive)
            with fails(errno.EBUSY):
                virt.mount.root.open(f"{virt.name}/{name}", os.O_RDONLY | os.O_NONBLOCK)
    writer = virt.open(os.O_WRONLY)
    writer.write(frame(77))
    assert virt.host_gets() == frame(77)
    for line in (f"{virt.name} impair loss 1%", f"cable {virt.unit} {other.unit}", f"{virt.name} netns far"):
        with fails(errno.EBUSY):
            virt.mount.ctl(line)
        assert "has the tap" in virt.mount.read("last_error")
    assert refusal(virt)[0] == errno.EBUSY
    until(lambda: frame(77) in capture.read(1 << 20), "the capture has the frame")
    pid = str(virt.mount.root.pid)
    virt.host_sends(frame(60))
    loan.read()
    rows = [line.split() for line in virt.read("clients").splitlines()]
    assert [pid, "fd", "1"] in [[row[0], row[2], row[3]] for row in rows]
    loan.write(HEADER + frame(60))
    assert (virt.count("rx_frames"), virt.count("rx_bytes")) == (1, 60)
    assert (virt.count("tx_frames"), virt.count("tx_bytes")) == (2, 137)
    writer.close()
    loan.close()
    returned(virt)


def link(virt: Virt) -> dict[str, Any]:
    """Return the tap as ip(8) shows it, and its features."""
    (shown,) = json.loads(virt.mount.ip(f"-j -d addr show {virt.tap}"))
    del shown["operstate"]  # UNKNOWN until the carrier changes for the first time
    features = virt.mount.sh(f"ethtool -k {virt.tap} | grep -v fixed")
    for who in ("user", "group"):  # a holder's user and group are replaced by root, because they cannot be removed
        assert shown["linkinfo"]["info_data"].pop(who, "root") == "root"
    return {**shown, "features": features}


@pytest.mark.parametrize(("request_", "kept"), [({}, True), (PLAIN, False)], ids=["header-kept", "plain-closed"])
def test_all_that_a_holder_changes_is_restored(virts: Virts, request_: dict[str, int], kept: bool) -> None:
    """A killed holder changes nothing for good. A copy of its descriptor is useless afterwards."""
    virt = virts(f"up inet 10.7.{int(kept)}.1/24 mtu 1400 queue 33 filter ether[12:2]=0x88b5 or arp")
    keeper = virt.mount.process()
    keeper.call(os.chdir, f"{DIR}")
    before = link(virt)
    process = virt.mount.process()
    loan = Loan(virt, request_, process)
    process.call(borrowing.change_everything, loan.tap, virt.tap)
    process.call(os.set_blocking, loan.tap, True)
    if kept:
        number = keeper.call(borrowing.steal, process.pid, loan.tap)
    process.kill()
    until(lambda: " fd " not in virt.read("clients"), "the tap is back")
    assert link(virt) == before
    returned(virt)
    if kept:
        with fails(errno.EBADFD):
            keeper.call(os.read, number, 4096)
    keeper.close()


def test_who_may(virts: Virts) -> None:
    """The rights are those that an open of `frame` for reading and writing needs, including supplementary groups."""
    virt = virts("up owner daemon mode 0600")
    owner, other = virt.mount.process(DAEMON), virt.mount.process(2)
    member = virt.mount.process()
    member.call(os.setgroups, [7, 1000])
    member.call(os.setresuid, 3, 3, 3)
    assert refusal(virt, {}, other)[0] == errno.EACCES
    assert "does not let user 2" in other.call(Path.read_text, Path(DIR, "last_error"))
    loan = Loan(virt, {}, owner)
    loan.close()
    returned(virt)
    assert refusal(virt, {}, member)[0] == errno.EACCES
    virt.set("group 1000")
    loan = Loan(virt, {}, member)
    loan.close()
    returned(virt)
    virt.set("mode 0640")
    assert refusal(virt, {}, member)[0] == errno.EACCES
    virt.set("antispoof")
    assert refusal(virt, {}, owner)[0] == errno.EPERM
    Loan(virt).close()
    virt.set("-antispoof")
    returned(virt)


def test_what_stands_in_the_way(virts: Virts) -> None:
    virt, other = virts(), virts()
    reader = virt.open(os.O_RDONLY, process=(another := virt.mount.process()))
    reading = f"process {another.call(os.getpid)} is reading {virt.name} (see clients)"
    assert refusal(virt) == (errno.EBUSY, f"{virt.name}/fd: {reading}")
    reader.close()
    writer = another.open(f"{virt.name}/stream", os.O_WRONLY)
    writing = reading.replace("reading", "writing to")
    assert refusal(virt, {"lend": True}) == (errno.EBUSY, f"{virt.name}/fd: {writing}")
    writer.close()
    virt.set("impair delay 1ms")
    assert refusal(virt) == (errno.EBUSY, f"{virt.name}/fd: {virt.name} has an impairment: {virt.name} -impair first")
    virt.set("-impair")
    virt.mount.ctl(f"cable {virt.unit} {other.unit}")
    assert refusal(virt) == (errno.EBUSY, f"{virt.name}/fd: {virt.name} has a cable: uncable {virt.unit} first")
    virt.mount.ctl(f"uncable {virt.unit} {other.unit}")
    Loan(virt).close()
    returned(virt)


def test_a_malformed_request(virt: Virt) -> None:
    for message in (b"[]", b'{"vnet_hdr":12}', b"{}" + b" " * 9999):
        number, sentence = refusal(virt, message)
        assert number == errno.EINVAL
        assert virt.mount.read("last_error") == sentence


@pytest.mark.parametrize("request_", [{}, {"vnet_hdr": 0}], ids=["as it is", "anew"])
def test_an_unplugged_tap_stays_unplugged(virts: Virts, request_: dict[str, int]) -> None:
    virt = virts("up carrier off")

    def sees(carrier: str) -> None:  # the kernel reports a change of the carrier at most once a second
        until(lambda: ("NO-CARRIER" in link(virt)["flags"]) == (carrier == "0"), f"carrier {carrier}")
        until(lambda: virt.read("tap/carrier") == carrier, f"tap/carrier is {carrier}")

    loan = Loan(virt, request_)
    sees("0")
    virt.write("carrier", "always\n")
    sees("1")
    virt.write("carrier", "off\n")
    sees("0")
    loan.close()
    until(lambda: " fd " not in virt.read("clients"), "the tap is back")
    sees("0")


def test_lend(virts: Virts) -> None:
    """The owner attaches to the tap through /dev/net/tun. Even a tap that it deletes comes back."""
    virt = virts("up inet 10.8.0.1/24 owner daemon")
    before = link(virt)
    process = virt.mount.process(DAEMON)
    for deletes in (False, True):
        loan = Loan(virt, {"lend": True}, process)
        assert (loan.answer["lend"], loan.tap) == (True, -1)
        with fails(errno.EBUSY):
            virt.open(os.O_WRONLY)
        virt.listen()
        tap = process.call(borrowing.attach, virt.tap)
        virt.host_sends(frame(60))
        assert process.call(os.read, tap, 4096) == frame(60)
        process.call(borrowing.persist, tap, 0 if deletes else 1)
        process.call(os.close, loan.connection)
        process.call(os.close, tap)
        until(lambda: " fd " not in virt.read("clients"), "the tap is back")
        assert link(virt) == before
        returned(virt)
    with fails(errno.EPERM):
        process.call(borrowing.attach, virt.tap)


def test_an_end_with_a_holder(virts: Virts) -> None:
    """destroy takes the tap from its holder."""
    for request in ({}, PLAIN, {"lend": True}):
        virt = virts()
        loan = Loan(virt, request)
        virt.mount.ctl(f"destroy {virt.unit}")
        assert not virt.mount.has(virt.tap)
        assert loan.process.call(os.read, loan.connection, 1) == b""
        if loan.tap >= 0:
            with fails(errno.EBADFD):
                loan.read()
        loan.close()


@pytest.mark.parametrize("request_", [{}, PLAIN, {"lend": True}], ids=["header", "plain", "lend"])
def test_right_after_its_holder(virt: Virt, request_: dict[str, Any]) -> None:
    """What needs the tap waits until virtfs has taken it back, instead of failing with EBUSY."""
    for _ in range(3):
        Loan(virt, request_).close()
        virt.open().close()
        Loan(virt, request_).close()
        virt.mount.root.open(f"{virt.name}/rx", os.O_RDONLY | os.O_NONBLOCK).close()
        Loan(virt, request_).close()
        virt.set("impair delay 1ms")
        virt.set("-impair")
        Loan(virt, request_).close()
    returned(virt)


def test_waits_for_the_next_holder(virt: Virt) -> None:
    """A program that has ended is no reader any more, and a tap that has changed hands gets every frame."""
    waiter = virt.mount.process()
    for _ in range(5):
        Loan(virt, PLAIN).close()
        reader, carrier = (waiter.open(f"{virt.name}/wait/{name}", os.O_RDONLY) for name in ("reader", "carrier"))
        waiting = reader.begin_read().waiting()
        loan = Loan(virt, PLAIN)
        assert (waiting.result(), carrier.read()) == (b"1\n", b"1\n")
        virt.host_sends(frame(70))
        assert loan.read() == frame(70)
        loan.close()
        reader.close()
        carrier.close()
    returned(virt)


def test_a_read_that_waits_ends_with_the_interface(virts: Virts) -> None:
    """The errors are those of the kernel: EFAULT for a read that waits, EBADFD afterwards (drivers/net/tun.c)."""
    virt = virts()
    loan = Loan(virt)
    waiting = loan.process.begin(os.read, loan.tap, 2048)
    virt.mount.ctl(f"destroy {virt.unit}")
    with pytest.raises(OSError, match=r"Bad address|bad state"):
        waiting.result()
    with fails(errno.EBADFD):
        loan.read()
    loan.close()


def test_a_tap_deleted_under_its_holder(virt: Virt) -> None:
    loan = Loan(virt)
    virt.mount.ip(f"link del {virt.tap}")
    until(lambda: virt.read("up") == "0", "it is lost")
    loan.close()
    until(lambda: " fd " not in virt.read("clients"), "the holder is gone")
    with fails(errno.ENXIO):
        virt.open()


def test_kills_at_any_moment(virt: Virt) -> None:
    """A process that is killed while it asks for the tap, or has it, leaves nothing behind."""
    requests = [json.dumps(request).encode() for request in ({}, PLAIN, {"lend": True})]
    for round_ in range(6):
        process = virt.mount.process()
        pending = process.begin(borrowing.ask_slowly, virt.name, requests[round_ % 3], round_ * 0.003)
        if round_ % 2:
            until(lambda: " fd " in virt.read("clients"), "it has the tap")
        process.kill()
        del pending
        until(lambda: " fd " not in virt.read("clients"), "the tap is back")
    returned(virt)


def test_idle_connections(virts: Virts) -> None:
    """A user can have only a few connections without a request, and they do not prevent requests by others."""
    virt = virts("up owner daemon")
    process = virt.mount.process(DAEMON)
    idle = [process.call(borrowing.connect, virt.name) for _ in range(8)]
    with suppress(ConnectionError):  # if the request arrives before the connection is closed
        assert refusal(virt, {}, process)[0] == errno.EBUSY
    refused = process.call(borrowing.connect, virt.name)
    until(lambda: process.call(borrowing.is_closed, refused), "a ninth connection is closed at once")
    Loan(virt).close()
    returned(virt)
    assert process.call(os.read, idle[0], 1) == b"", "closed after some seconds"
    for number in idle:
        process.call(os.close, number)


def test_a_mount_that_ends_with_holders(mount: Mount) -> None:
    """Nothing is left behind: the fixture checks that."""
    mount.ctl("create 201 up\ncreate 202 up persist")
    for name in ("virt201", "virt202"):
        mount.root.call(borrowing.ask, name, b"{}")
    mount.end(signal.SIGTERM)
    assert mount.links() == ["lo", "tap202"]
    mount.end_programs()
    mount.ip("link del tap202")


@pytest.mark.parametrize("way", ["frame", "the tap, with a header"])
def test_what_a_program_reads_has_its_checksum(virt: Virt, way: str) -> None:
    """On the tap the kernel would leave it to the program only after TUNSETOFFLOAD (doc/stack-author.md)."""
    virt.mount.ip(f"address add 10.80.0.1/24 dev {virt.tap}")
    virt.mount.ip(f"neighbour add 10.80.0.2 lladdr 02:00:00:00:00:09 dev {virt.tap}")
    if way == "frame":
        file, header = virt.open(), b""
    else:
        loan, header = Loan(virt), HEADER
        until(lambda: virt.read("tap/carrier") == "1", "the tap has its carrier")
    virt.mount.sh("echo hello >/dev/udp/10.80.0.2/9")
    packet = file.read() if way == "frame" else loan.read()
    assert packet.startswith(header)
    assert len(packet) == len(header) + 14 + 20 + 8 + 6, "it is not padded to 60 bytes"
    datagram = packet[len(header) + 14 + 20 :]
    addresses = packet[len(header) + 14 + 12 : len(header) + 14 + 20]
    words = struct.unpack(">13H", addresses + struct.pack(">HH", 17, len(datagram)) + datagram)
    assert sum(words) % 0xFFFF == 0
