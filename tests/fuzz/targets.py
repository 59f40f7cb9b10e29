"""What is fuzzed: functions that take any bytes, and fail only in the ways that their parser promises.

A target returns, or raises AssertionError or any other exception: a finding. Expected refusals are checked here: a
VirtError has a known errno and a printable sentence.
"""

import contextlib
import errno
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from virtfs.cli import helper, main, options
from virtfs.cli.usermap import ranges_of
from virtfs.core import ethernet, grammar, hexlines, line_text, quantities, verbs
from virtfs.core.arguments import parse_filter
from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.impairment_text import parse_impairment_verb
from virtfs.core.loan import parse_request
from virtfs.core.offload import complete_frames
from virtfs.core.pcapng_sieve import Sieve
from virtfs.core.quoting import encode, one_line, quoted, word
from virtfs.core.savefile import Reader, Run, Spans
from virtfs.core.script import Script
from virtfs.daemon.earlier import earlier
from virtfs.daemon.failed_lines import replayable
from virtfs.files.tunioctl import TunIoctls
from virtfs.fuse import mounttable
from virtfs.host import netlink_attributes
from virtfs.host.bpf import compile_filter
from virtfs.host.monitor import LinkChanged, events_in

Target = Callable[[bytes], None]

# Errnos with which a parser may refuse its input.
REFUSALS: Final = {errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.EFBIG, errno.EBUSY}


@contextmanager
def may_refuse() -> Iterator[None]:
    """The body may raise a VirtError with a known errno and one printable sentence."""
    refused: VirtError | None = None
    try:
        yield
    except VirtError as refusal:
        refused = refusal
    if refused is not None:
        assert refused.errno in REFUSALS, refused
        assert refused.strerror, refused.errno
        assert refused.strerror.isprintable(), refused


def ctl_line(data: bytes) -> None:
    """A line of the mount's ctl. A command that is accepted is the same when it is written and read again."""
    with may_refuse():
        command = grammar.parse(to_text(data))
        if command is not None:
            assert grammar.parse(line_text.format_command(command)) == command


def verbs_line(data: bytes) -> None:
    """A line of the ctl of an interface or a bridge. The first byte selects which."""
    noun: verbs.Noun = verbs.BRIDGE if data[:1] > b"\x7f" else verbs.VIRT
    with may_refuse():
        actions = grammar.parse_verbs(to_text(data[1:]), noun)
        assert grammar.parse_verbs(line_text.format_actions(actions, noun), noun) == actions


def script(data: bytes) -> None:
    """Writes to ctl, cut at each byte 0xff, and padded to more than a page at each 0xfe."""
    lines = Script()
    for piece in data.split(b"\xff"):
        with may_refuse():
            for line in lines.feed(piece.replace(b"\xfe", b"# " + b"x" * 4096)):
                with may_refuse():
                    grammar.parse(line.text)
    lines.rest()


_FILES: Final = sorted({verb.file for verb in verbs.VERBS if verb.file and verb.noun == verbs.VIRT})


def value(data: bytes) -> None:
    """A write to an attribute file, which the first byte selects."""
    file = _FILES[(data or b"\0")[0] % len(_FILES)]
    with may_refuse():
        action = grammar.file_action(file, to_text(data[1:]))
        assert isinstance(action, Action)


def numbers(data: bytes) -> None:
    """Every kind of number, name and address."""
    text = to_text(data)
    for parse in (
        quantities.parse_unit, quantities.parse_bridge_name, quantities.parse_mode, quantities.parse_size,
        quantities.parse_rate, quantities.parse_time, quantities.parse_percent, quantities.parse_factor,
        ethernet.parse_mac, ethernet.parse_station_mac,
        lambda text: quantities.parse_unit_name(text, "", "virt", "tap"),
        lambda text: quantities.parse_int(text, -5, 2**63),
    ):  # fmt: skip
        with may_refuse():
            parse(text)
    for verb in verbs.VERBS:
        for argument in verb.arguments:
            with may_refuse():
                found = argument.parse(text)
                assert argument.parse(argument.format(found)) == found, (verb.name, found)


def impairment(data: bytes) -> None:
    """The words of tc-netem(8)."""
    with may_refuse():
        _, _, count = parse_impairment_verb(to_text(data).split())
        assert count <= len(data)


def hex_lines(data: bytes) -> None:
    """Writes to hex, cut at each byte 0xff."""
    lines = hexlines.Lines()
    for piece in data.split(b"\xff"):
        with may_refuse():
            for frame in lines.feed(piece):
                assert frame is None or hexlines.parse_line(hexlines.format_frame(frame)) == frame
    lines.rest()


def capture_file(data: bytes) -> None:
    """pcap or pcapng, in pieces. The frames do not depend on the pieces, nor on whether frames come in groups."""
    step = (data[-1] if data else 0) + 1
    results: list[list[bytes]] = []
    for size, by_frames in ((len(data) or 1, True), (step * 7, False), (step, True)):
        reader, found = Reader(), list[bytes]()
        with may_refuse():
            for at in range(0, len(data), size):
                if by_frames:
                    for one in reader.feed_frames(data[at : at + size], lambda: 16):
                        found += one.singly() if isinstance(one, Run | Spans) else one
                else:
                    for record in reader.feed(data[at : at + size]):
                        found.append(bytes(record.frame))
            reader.finish()
        reader.give_back()
        results.append(found)
    assert results[0] == results[1] == results[2]


def capture_stream(data: bytes) -> None:
    """A capture from which frames are removed, in pieces. What passes does not depend on the pieces."""
    step = (data[-1] if data else 0) + 1
    results: list[tuple[bytes, bool]] = []
    for size in (len(data) or 1, step):
        sieve, passed, complete = Sieve(lambda frame, length: len(frame) < length), b"", False
        with may_refuse():
            for at in range(0, len(data), size):
                passed += sieve.feed(data[at : at + size])
            complete = True
        results.append((passed, complete))
    (whole, complete), (pieces, _) = results
    assert results[0] == results[1] if complete else pieces.startswith(whole)


def offload(data: bytes) -> None:
    """A packet with the header of a tap."""
    if len(data) < 10:
        return
    with contextlib.suppress(ValueError):
        for frame in complete_frames(memoryview(data)[:10], memoryview(data)[10:]):
            assert len(frame) <= len(data) - 10


def quoting(data: bytes) -> None:
    """Names from outside."""
    for text in (to_text(data), data.decode("utf-16", "surrogatepass" if len(data) % 2 == 0 else "replace")):
        for shown in (quoted(text), word(text), one_line(text), VirtError(1, text).strerror):
            assert shown.isprintable()
        assert encode(text).decode().replace("\n", "").replace("\t", "").isprintable()


def state_file(data: bytes) -> None:
    """A state file, up to the commands."""
    text = to_text(data)
    earlier(text)
    for line in text.splitlines():
        with may_refuse():
            grammar.parse(replayable(line))


def mount_options(data: bytes) -> None:
    """A list of options after -o. The result is the same when it is written and read again."""
    text = to_text(data).replace("\0", "")
    with may_refuse():
        parsed = options.parse(text, sloppy=data[:1] > b"\x7f")
        assert options.parse(parsed.text()).own() == parsed.own()


def command_line(data: bytes) -> None:
    """The arguments of virtfs and of mount.virtfs -f, separated by NUL."""
    words = to_text(data).split("\0")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main._parser().parse_args(words)
        with contextlib.suppress(SystemExit):
            assert helper.main([*words, "-f"]) in (0, helper.MISUSED, helper.FAILED)


def mount_table(data: bytes) -> None:
    """/proc/self/mountinfo."""
    for mount in mounttable.parse(data):
        mount.option("user_id")
    good = b"36 35 98:0 / /mnt rw,noatime shared:1 - fuse.virtfs virtfs rw,user_id=0\n"
    assert len(mounttable.parse(data.replace(b"\n", b"") + b"\n" + good)) >= 1


def subuid(data: bytes) -> None:
    """/etc/subuid."""
    for first, count in ranges_of({"1000", "nobody", ""}, to_text(data)):
        assert first >= 0
        assert count > 0


def netlink(data: bytes) -> None:
    """A message of rtnetlink, with a valid length field, since the kernel sets it."""
    fixed = struct.pack("=I", len(data) + 4) + data
    for message in (fixed, data):
        for event in events_in(message, None):
            if isinstance(event, LinkChanged):
                assert event.link.index == event.index
    attributes = netlink_attributes.parse(data)
    assert netlink_attributes.parse(netlink_attributes.pack(attributes.items())).keys() == attributes.keys()


def filter_expression(data: bytes) -> None:
    """A filter, up to the kernel. The compiler, libpcap, is written in C, where a fault ends the process."""
    with may_refuse():
        compile_filter(parse_filter(to_text(data)))


def ioctl(data: bytes) -> None:
    """ioctl(2) of a frame file, as the channel passes it: a command of 4 bytes and an argument of any length."""
    if len(data) < 4:
        return
    state = TunIoctls()
    command = int.from_bytes(data[:4], "little")
    for name in (b"tap3", b"\xff", b""):
        with may_refuse():
            answer = state.answer(command, data[4:], name)
            assert answer is None or len(answer) <= 40


def loan(data: bytes) -> None:
    """A request for the descriptor of a tap, as it arrives at the socket of fd."""
    with may_refuse():
        parse_request(data)


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        ctl_line, verbs_line, script, value, numbers, impairment, hex_lines, capture_file, capture_stream, offload,
        quoting, state_file, mount_options, command_line, mount_table, subuid, netlink, ioctl, filter_expression, loan,
    )
}  # fmt: skip
