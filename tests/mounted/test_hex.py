"""hex: frames as text, for shells."""

import errno
import os
import select
import subprocess

import pytest
from harness.places import finished
from harness.process import fails
from harness.serving import Virt, Virts, frame
from harness.waiting import until_it_waits

FRAME = frame(60)
DIGITS = FRAME.hex()


def test_what_the_host_sends_is_a_line(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex")
    sent = [frame(14, 1), frame(60, 2), frame(1514, 3)]
    virt.host_sends(*sent)
    assert [file.read() for _ in sent] == [one.hex().encode() + b"\n" for one in sent]
    assert virt.count("rx_frames") == 3


def test_a_line_is_a_frame_to_the_host(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex")
    assert file.write(f"{DIGITS}\n") == len(DIGITS) + 1
    assert virt.host_gets() == FRAME
    file.write(f"{frame(61).hex()}\n# a comment\n\n{frame(62).hex()} # and another\n{frame(63).hex().upper()}\n")
    assert [virt.host_gets() for _ in range(3)] == [frame(61), frame(62), frame(63)]
    assert virt.count("tx_frames") == 4


PRINTED = {
    "xxd -p": "xxd -p {file} | tr -d '\\n'; echo",
    "xxd -p -c0": "xxd -p -c 0 {file}",
    "od -An -v -tx1": "od -An -v -tx1 -w65539 {file}",
    "od, in a line": "od -An -v -tx1 {file} | tr -d '\\n'; echo",
    "Wireshark's hex stream": "echo {stream}",
    "Wireshark's escaped": "echo {colons}",
    "C's bytes": "echo {bytes}",
}


@pytest.mark.parametrize("printed", PRINTED)
def test_what_others_print_is_understood(virt: Virt, printed: str) -> None:
    command = PRINTED[printed].format(
        file="/mnt/one",
        stream=DIGITS,
        colons=FRAME.hex(":"),
        bytes=" ".join(f"0x{byte:02x}" for byte in FRAME),
    )
    virt.mount.sh(f"xxd -r -p <<<{DIGITS} >/mnt/one; {{ {command}; }} >{virt.name}/hex")
    assert virt.host_gets() == FRAME
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (1, 0)


def test_read_r_takes_one_line_and_leaves_the_next(virt: Virt) -> None:
    """bash reads a byte at a time from files that cannot seek."""
    reader = virt.mount.shell(
        f"exec 5<{virt.name}/hex; echo; while read -r line <&5; do echo $line; done", stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "\n"
    sent = [frame(14), frame(100, 1), frame(1514, 2)]
    virt.host_sends(*sent)
    assert [reader.stdout.readline() for _ in sent] == [f"{one.hex()}\n" for one in sent]
    virt.mount.ctl(f"destroy {virt.unit}")
    finished(reader)


def test_both_ways_on_one_descriptor(virt: Virt) -> None:
    """The program answers with the same frame, its addresses swapped."""
    station = virt.mount.shell(
        f"exec 5<>{virt.name}/hex; echo; read -r q <&5; echo ${{q:12:12}}${{q:0:12}}${{q:24}} >&5",
        stdout=subprocess.PIPE,
    )
    assert station.stdout is not None
    assert station.stdout.readline() == "\n"
    virt.host_sends(FRAME)
    assert virt.host_gets() == FRAME[6:12] + FRAME[:6] + FRAME[12:]
    finished(station)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ffffffffffffzz", '"zz" at column 13 is not hexadecimal'),
        ("fff", '"fff" at column 1 has 3 digits: write two digits for each byte'),
        (f"{DIGITS} 6 4", f'"6" at column {len(DIGITS) + 2} is half a byte: write two digits for each byte'),
        (
            f"00000000: {DIGITS}",
            '"00000000:" at column 1 is the offset of a dump: write the bytes alone, as xxd -p -c0 prints them',
        ),
        (f"{DIGITS}\nff ff xy\n{DIGITS}", 'line 2: "xy" at column 7 is not hexadecimal'),
    ],
)
def test_a_bad_line_is_refused(virt: Virt, line: str, why: str) -> None:
    """The bad line sends nothing. The lines before it have been sent."""
    file = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    with fails(errno.EINVAL):
        file.write(f"{line}\n")
    assert virt.mount.read("last_error") == f"{virt.name}/hex: {why}"
    assert virt.count("tx_frames") == line.split("\n").index(next(x for x in line.split("\n") if x != DIGITS))
    assert virt.count("tx_dropped") == 0
    file.write(f"{frame(77).hex()}\n")
    if virt.count("tx_frames") == 2:
        assert virt.host_gets() == FRAME
    assert virt.host_gets() == frame(77)


@pytest.mark.parametrize("where", ["", "line 2: "], ids=["the only line", "the second line"])
def test_a_refused_frame_is_found_by_its_line(virt: Virt, where: str) -> None:
    """The frames before it are sent, it is counted, and the rest of the write is discarded and counted nowhere."""
    virt.set("strict")
    file = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    lines = f"{DIGITS}\n010203\n{DIGITS}\n" if where else "010203\n"
    with fails(errno.EMSGSIZE):
        file.write(lines)
    said = f"{virt.name}/hex: {where}a frame of 3 bytes is too short: the minimum is 14"
    assert virt.mount.read("last_error") == said
    assert (virt.count("tx_frames"), virt.count("tx_dropped"), virt.count("tx_short")) == (bool(where), 1, 1)


@pytest.mark.parametrize(("size", "length"), [(1, 60), (999, 1000), (1000, 1000), (5000, 1000)])
def test_a_line_in_several_writes(virt: Virt, size: int, length: int) -> None:
    """cat, dd and pipes split files in this way."""
    lines = "".join(f"{frame(length, number).hex()}\n" for number in range(20))
    virt.mount.sh(f"cat >/mnt/lines <<'EOT'\n{lines}EOT\ndd if=/mnt/lines of={virt.name}/hex bs={size} status=none")
    assert [virt.host_gets() for _ in range(20)] == [frame(length, number) for number in range(20)]
    assert virt.count("tx_frames") == 20


def test_a_line_that_never_ends_is_told_of(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    file.write(f"{frame(1514).hex()}\n{DIGITS}")
    assert virt.host_gets() == frame(1514)
    file.close()
    said = f"{virt.name}/hex: the last line was not sent: it does not end with a newline"
    assert virt.mount.read("last_error") == said
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (1, 0)


def test_a_pipe_from_hex_to_hex(virts: Virts) -> None:
    """dd writes blocks of a fixed size, wherever a line ends."""
    first, second = virts(), virts()
    copier = first.mount.shell(f"exec cat {first.name}/hex > >(exec dd bs=1000 of={second.name}/hex status=none)")
    until_it_waits(copier.pid)
    sent = [frame(1514, number) for number in range(5)]
    first.host_sends(*sent)
    assert [second.host_gets() for _ in sent] == sent
    assert (second.count("tx_frames"), second.count("tx_dropped")) == (5, 0)


def test_a_line_longer_than_any_frame(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    file.write("0" * 200_000)
    with fails(errno.E2BIG):
        file.write("0" * 200_000)
    file.write(f"{DIGITS}\n")
    assert virt.host_gets() == FRAME
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (1, 0)


@pytest.mark.parametrize("length", [9018, 65535])
def test_long_frames(virt: Virt, length: int) -> None:
    virt.set(f"mtu {length - 14}")
    file = virt.mount.root.open(f"{virt.name}/hex")
    virt.host_sends(frame(length))
    line = b""
    while not line.endswith(b"\n"):
        line += file.read(4096)
    assert line == frame(length).hex().encode() + b"\n"
    file.write(line)
    assert virt.host_gets() == frame(length)


def test_what_no_interface_takes_is_counted(virt: Virt) -> None:
    virt.write("hex", f"{frame(13).hex()}\n{frame(1519).hex()}\n")
    assert (virt.count("tx_short"), virt.count("tx_oversize"), virt.count("tx_frames")) == (1, 1, 0)


def test_it_shares_the_seat_of_frame(virt: Virt) -> None:
    reader = virt.open(os.O_RDONLY)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with fails(errno.EBUSY):
            virt.mount.root.open(f"{virt.name}/hex", flags)
    virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    reader.close()
    virt.mount.root.open(f"{virt.name}/hex", os.O_RDONLY)
    with fails(errno.EBUSY):
        virt.open(os.O_RDONLY)


def test_it_shares_the_queue_of_frame(virt: Virt) -> None:
    """Each frame goes to a reader of one of the two files."""
    virt.write("exclusive", "none\n")
    frames = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    lines = virt.mount.root.open(f"{virt.name}/hex", os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(frame(60, 1), frame(60, 2), frame(60, 3))
    assert lines.read() == frame(60, 1).hex().encode() + b"\n"
    assert frames.read() == frame(60, 2)
    assert lines.read(2) == b"ff"
    with fails(errno.EAGAIN):
        frames.read()
    assert lines.read() == frame(60, 3).hex().encode()[2:] + b"\n"
    assert virt.count("rx_frames") == 3


def test_poll_and_wait(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex")
    assert file.poll() == select.POLLOUT
    waiting = file.begin_read(3).waiting()
    virt.host_sends(FRAME)
    assert waiting.result() == b"fff"
    assert file.poll() == select.POLLIN | select.POLLOUT
    assert file.read() == DIGITS[3:].encode() + b"\n"
    assert file.poll() == select.POLLOUT


def test_down_and_destroyed(virt: Virt) -> None:
    file = virt.mount.root.open(f"{virt.name}/hex")
    waiting = file.begin_read().waiting()
    virt.set("down")
    with fails(errno.EHOSTDOWN):
        waiting.result()
    virt.set("up")
    waiting = file.begin_read().waiting()
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENXIO):
        waiting.result()
    with fails(errno.ENXIO):
        file.write(f"{DIGITS}\n")
    assert file.poll() & (select.POLLERR | select.POLLHUP) == select.POLLERR | select.POLLHUP


@pytest.mark.parametrize("text", ["ff", "ff\n", f"{DIGITS}\n", "# a comment\n", "\n"])
def test_any_write_after_the_interface_was_destroyed(virt: Virt, text: str) -> None:
    """Also one that would send no frame yet."""
    file = virt.mount.root.open(f"{virt.name}/hex", os.O_WRONLY)
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENXIO):
        file.write(text)
    assert virt.mount.read("last_error") == f"{virt.name}/hex: {virt.name} is gone"


def test_a_killed_reader_frees_the_seat(virt: Virt) -> None:
    reader = virt.mount.shell(f"exec cat {virt.name}/hex")
    until_it_waits(reader.pid)
    reader.kill()
    finished(reader)
    virt.open(os.O_RDONLY)
