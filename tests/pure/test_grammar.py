import errno
import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_impairment_text import impairments

from virtfs.core import arguments
from virtfs.core.errors import VirtError
from virtfs.core.ethernet import parse_station_mac
from virtfs.core.grammar import VERBS_MAX, Action, Command, file_action, parse, parse_verbs
from virtfs.core.help_text import help_text
from virtfs.core.ids import BridgeName, Unit
from virtfs.core.impairment import Impairment, Share
from virtfs.core.line_text import format_actions, format_command
from virtfs.core.line_words import LINE_MAX, WORDS_MAX, Words
from virtfs.core.socketname import FORMS as SOCKET_FORMS
from virtfs.core.socketname import SocketName
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT, Form, Kind, Noun, Verb

MAC = parse_station_mac("b2:0a:00:0b:0e:03")


def refused(line: str) -> tuple[int | None, str]:
    with pytest.raises(VirtError) as caught:
        parse(line)
    return caught.value.errno, str(caught.value.strerror)


def check_refusal(error: VirtError) -> None:
    """Assert what holds for every refusal: one of two errnos, and one printable line that quotes something."""
    assert error.errno in (errno.EINVAL, errno.ERANGE)
    assert '"' in str(error.strerror)
    assert str(error.strerror).isprintable()


# --- the meaning of a line


@pytest.mark.parametrize("line", ["", " ", "\t \t", "#", "# create 3", "  #create 3"])
def test_nothing_to_do(line: str) -> None:
    assert parse(line) is None
    assert parse_verbs(line) == ()


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("create", Command("create")),
        ("create up", Command("create", None, (Action("up"),))),
        ("create 3", Command("create", Unit(3))),
        ("create virt3", Command("create", Unit(3))),
        ("create virt0 # the first", Command("create", Unit(0))),
        (" create\t 3  down ", Command("create", Unit(3), (Action("down"),))),
        ("create taplink b2:a:0:b:e:3", Command("create", None, (Action("taplink", (MAC,)),))),
        ("ensure 2147483639", Command("ensure", Unit(2147483639))),
        ("ensure virt3 strict", Command("ensure", Unit(3), (Action("strict"),))),
        ("destroy 3", Command("destroy", Unit(3))),
        ("destroy all", Command("destroy")),
        ("check destroy all", Command("destroy", checks=True)),
        ("destroy virt3#", None),
        ("virt3 up", Command("change", Unit(3), (Action("up"),))),
        ("virt3 up up down", Command("change", Unit(3), (Action("up"), Action("up"), Action("down")))),
        (
            "create 3 up mtu 1400 inet 10.0.3.1/24 owner alice",
            Command(
                "create",
                Unit(3),
                (
                    Action("up"),
                    Action("mtu", (1400,)),
                    Action("inet", (IPv4Interface("10.0.3.1/24"),)),
                    Action("owner", ("alice",)),
                ),
            ),
        ),
    ],
)
def test_commands(line: str, command: Command | None) -> None:
    if command is None:
        assert refused(line)[0] == errno.EINVAL
    else:
        assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("up", Action("up")),
        ("down", Action("down")),
        ("mtu 68", Action("mtu", (68,))),
        ("mtu 65521", Action("mtu", (65521,))),
        ("link b2:0a:00:0b:0e:03", Action("link", (MAC,))),
        ("taplink B2-A-0-B-E-3", Action("taplink", (MAC,))),
        ("inet 10.0.3.1/0", Action("inet", (IPv4Interface("10.0.3.1/0"),))),
        ("inet6 FD00::1/64", Action("inet6", (IPv6Interface("fd00::1/64"),))),
        ("-inet 10.0.3.1/24", Action("-inet", (IPv4Interface("10.0.3.1/24"),))),
        ("-inet 10.0.3.1", Action("-inet", (IPv4Address("10.0.3.1"),))),
        ("-inet6 fd00::1/64", Action("-inet6", (IPv6Interface("fd00::1/64"),))),
        ("-inet6 fd00::1", Action("-inet6", (IPv6Address("fd00::1"),))),
        ("owner 1000", Action("owner", ("1000",))),
        ("owner bob@example.org", Action("owner", ("bob@example.org",))),
        ("group dialout", Action("group", ("dialout",))),
        ("mode 660", Action("mode", (0o660,))),
        ("mode 0", Action("mode", (0,))),
        ("queue 1", Action("queue", (1,))),
        ("backlog 0", Action("backlog", (0,))),
        ("strict", Action("strict")),
        ("-strict", Action("-strict")),
        ("exclusive both", Action("exclusive", ("both",))),
        ("description", Action("description", ("",))),
        ("description  lab  #3, # is kept ", Action("description", ("lab  #3, # is kept",))),
        ("description up", Action("description", ("up",))),
    ],
)
def test_verbs(line: str, action: Action) -> None:
    assert parse_verbs(line) == (action,)
    assert parse(f"virt3 {line}") == Command("change", Unit(3), (action,))
    assert parse(f"create {line}") == Command("create", None, (action,))


# --- refused lines and their error sentences


@pytest.mark.parametrize(
    ("line", "noun", "sentence"),
    [
        ("virt3 strict", VIRT, 'unknown verb "virt3": leave out the name, since this file is about one interface'),
        ("bridge0 up", BRIDGE, 'unknown verb "bridge0": leave out the name, since this file is about one bridge'),
        ("bridge0 up", VIRT, 'unknown verb "bridge0": "virtfs ctl help" lists the verbs'),
        ("up virt3", VIRT, 'unknown verb "virt3": "virtfs ctl help" lists the verbs'),
        ("virtual", VIRT, 'unknown verb "virtual": "virtfs ctl help" lists the verbs'),
    ],
)
def test_a_name_in_the_own_ctl(line: str, noun: Noun, sentence: str) -> None:
    with pytest.raises(VirtError, match=re.escape(sentence)):
        parse_verbs(line, noun)


COMMANDS = '"virtfs ctl help" lists the commands'
FILE = "to run the lines of a file, use cat FILE >ctl"
WINDOWS = r": remove the line ends of Windows with sed -i 's/\r$//' FILE"
VERBS_LISTED = '"virtfs ctl help" lists the verbs'
NAMED = "an interface is named N or virtN, a bridge bridgeN"
BITS_OR_BYTES = 'write "10mbit" for bits a second, or "10Mbps" for bytes a second, without a blank'
NO_END = "is not an end of a cable, which is N, virtN or a socket"
NO_VLANS = "ctl has no verb for VLANs"
OF_A_TAP = '"ip link add link tapN name tapN.10 type vlan id 10" adds one to a tap; "bridge vlan" sets those of a port'
OF_A_BRIDGE = 'use "ip link set bridgeN type bridge vlan_filtering 1" and "bridge vlan"'
A_NUMBER = "to put its tap into a bridge whose name is a number, give the interface its number, too"
BRIDGE_LINE = "a line that changes a bridge begins with bridgeN"
SUCH = "an impairment such as delay 20ms or loss 1%"


def any_bridge(name: str) -> str:
    return f'"virtN bridge {name}" puts a tap into a bridge of the host'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("frob 3", f'unknown command "frob": {COMMANDS}'),
        ("change virt3 up", f'unknown command "change": {COMMANDS}'),
        ("creat 3", 'unknown command "creat": did you mean "create"? "virtfs ctl help" lists the commands'),
        ("remove 3", 'unknown command "remove": did you mean "destroy"? "virtfs ctl help" lists the commands'),
        ("up", 'unknown command "up": a verb goes after its interface, as in virt0 up'),
        ("3 up", 'unknown command "3": a line that changes an interface begins with virtN'),
        ("tap3 up", 'unknown command "tap3": a line that changes an interface begins with virtN'),
        ("CREATE 3", 'unknown command "CREATE": did you mean "create"? "virtfs ctl help" lists the commands'),
        ("create 3 upp", 'unknown verb "upp": did you mean "up"? "virtfs ctl help" lists the verbs'),
        ("create upp", 'unknown verb "upp": did you mean "up"? "virtfs ctl help" lists the verbs'),
        ("create quiet", f'unknown verb "quiet": {NAMED}, and "virtfs ctl help" lists the verbs'),
        ("virt3 -up", 'unknown verb "-up": did you mean "down"? "virtfs ctl help" lists the verbs'),
        ("virt3 mtu 1400 -down", 'unknown verb "-down": did you mean "up"? "virtfs ctl help" lists the verbs'),
        ("bridge0 -up", 'unknown verb "-up": did you mean "down"? "virtfs ctl help" lists the verbs'),
        ("bridge0 -static tap3", 'unknown verb "-static": did you mean "deladdr"? "virtfs ctl help" lists the verbs'),
        ("virt3 -mtu", 'unknown verb "-mtu": mtu has no opposite: "mtu 1500" sets the default'),
        (
            "virt3 -filter -description",
            'unknown verb "-description": description has no opposite: '
            '"description" with nothing after it sets the default',
        ),
        ("virt3 -mode", 'unknown verb "-mode": mode has no opposite; "virtfs ctl help" lists the verbs'),
        ("bridge0 -timeout", 'unknown verb "-timeout": timeout has no opposite: "timeout 1200" sets the default'),
        ("virt3 strict on", 'unknown verb "on": strict has no value: write strict or -strict'),
        ("create 3 up -strict yes", 'unknown verb "yes": -strict has no value: write strict or -strict'),
        ("virt3 up 1", 'unknown verb "1": up has no value: write up or down'),
        ("virt3 -impair Off", 'unknown verb "Off": -impair has no value: write -impair'),
        ("virt3 mtu 1400 on", 'unknown verb "on": "virtfs ctl help" lists the verbs'),
        ("virt3 on", 'unknown verb "on": "virtfs ctl help" lists the verbs'),
        ("virt3 loss 40%", 'unknown verb "loss": write "impair loss 40%"'),
        ("virt3 up delay 20ms 5ms", 'unknown verb "delay": write "impair delay 20ms"'),
        ("virt3 rate", 'unknown verb "rate": write "impair rate"'),
        ("virt3 remove", 'unknown verb "remove": "virtfs ctl help" lists the verbs'),
        (
            "create 3 address 02:00:00:00:00:01",
            'unknown verb "address": the verb is link (the MAC address of virt, the far end)'
            " or taplink (the MAC address of tap, the host's end)",
        ),
        (
            "virt3 history_size 64K",
            'unknown verb "history_size": the verb is history (bytes of recent frames to keep for the file history)',
        ),
        ("create br0", f'unknown verb "br0": {NAMED}, and "virtfs ctl help" lists the verbs; {any_bridge("br0")}'),
        ("create 3 br-lan", f'unknown verb "br-lan": "virtfs ctl help" lists the verbs; {any_bridge("br-lan")}'),
        ("br0 add virt6", f'unknown command "br0": {BRIDGE_LINE}; {any_bridge("br0")}'),
        ("vmbr0 up", f'unknown command "vmbr0": {BRIDGE_LINE}; {any_bridge("vmbr0")}'),
        ("bring up", f'unknown command "bring": {COMMANDS}'),
        ("/home/me/lesson.ctl", f'unknown command "/home/me/lesson.ctl": {FILE}'),
        ("lesson.ctl", f'unknown command "lesson.ctl": {FILE}'),
        ("help", 'unknown command "help": "virtfs ctl help" prints the help, and the file help has it'),
        ("create up eth0", 'unknown verb "eth0": "virtfs ctl help" lists the verbs'),
        ("ensure br0 up", f'"br0" is not a name: {NAMED}; {any_bridge("br0")}'),
        ("destroy br0", f'"br0" is not a name: {NAMED}; all stands for everything'),
        ("destroy al", f'"al" is not a name: {NAMED}; all stands for everything'),
        ("create 3 4", 'unknown verb "4": "virtfs ctl help" lists the verbs'),
        ("virt3 destroy", 'unknown verb "destroy": destroy begins a line of the mount\'s ctl'),
        ("virt3 up create 4", 'unknown verb "create": create begins a line of the mount\'s ctl'),
        ("virt3 impair delay 20 ms loss 1%", 'unknown verb "ms": write "20ms", without a blank'),
        ("virt3 history 4 M", 'unknown verb "M": write "4M", without a blank'),
        ("virt3 impair loss 10 % up", 'unknown verb "%": write "10%", without a blank'),
        ("cable 1 2 rate 10 Mbit/s", f'"Mbit/s" is not {SUCH}: write "10mbit", without a blank'),
        ("virt3 impair rate 10 Mbps", f'unknown verb "Mbps": {BITS_OR_BYTES}'),
        ("create 3 up ip 10.0.3.1/24", 'unknown verb "ip": write "inet 10.0.3.1/24"'),
        ("create 3 up addr fd00::1/64", 'unknown verb "addr": write "inet6 fd00::1/64"'),
        ("virt3 address 10.0.3.1/24", 'unknown verb "address": write "inet 10.0.3.1/24"'),
        ("virt3 up 10.0.3.1/24", 'unknown verb "10.0.3.1/24": write "inet 10.0.3.1/24"'),
        ("bridge0 fd00::1/64", 'unknown verb "fd00::1/64": write "inet6 fd00::1/64"'),
        ("create 5 up ip6 fd00::1/64", 'unknown verb "ip6": write "inet6 fd00::1/64"'),
        ("create 5 up ipaddr 10.0.3.1/24", 'unknown verb "ipaddr": write "inet 10.0.3.1/24"'),
        ("create 5 up -4 10.0.3.1/24", 'unknown verb "-4": write "inet 10.0.3.1/24"'),
        ("bridge0 up -6 fd00::1/64", 'unknown verb "-6": write "inet6 fd00::1/64"'),
        ("virt3 inet4 10.0.3.1/24", 'unknown verb "inet4": write "inet 10.0.3.1/24"'),
        ("virt3 -ip 10.0.3.1/24", 'unknown verb "-ip": write "-inet 10.0.3.1/24"'),
        ("virt3 del fd00::1/64", 'unknown verb "del": write "-inet6 fd00::1/64"'),
        ("virt3 ipv6 up", f'unknown verb "ipv6": did you mean "inet6"? {VERBS_LISTED}'),
        ("virt3 gateway 10.0.3.1", 'unknown verb "gateway": "virtfs ctl help" lists the verbs'),
        ("virt3 ip addr add", f'unknown verb "ip": did you mean "inet"? {VERBS_LISTED}'),
        ("bridge0 vlan 10", f'unknown verb "vlan": {NO_VLANS}: {OF_A_BRIDGE}'),
        ("create 3 up vlan 10", f'unknown verb "vlan": {NO_VLANS}: {OF_A_TAP}'),
        ("virt3 up ms", 'unknown verb "ms": "virtfs ctl help" lists the verbs'),
        ("virt3 s", 'unknown verb "s": "virtfs ctl help" lists the verbs'),
        ("cable 1 2 rate 3 mbit loss 1%", f'"mbit" is not {SUCH}: write "3mbit", without a blank'),
        ("cable 1 2 loss 3 % delay 1ms", f'"%" is not {SUCH}: write "3%", without a blank'),
        ("create 03", '"03" is not an interface name: it must be N or virtN, with N in plain decimal'),
        ("create -3", '"-3" is not an interface name: it must be N or virtN, with N in plain decimal'),
        ("create tap3", '"tap3" is not an interface name: write "virt3", whose tap it is'),
        ("cable 3 tap4", '"tap4" is not an interface name: write "virt4", whose tap it is'),
        ("uncable tap4", '"tap4" is not an interface name: write "virt4", whose tap it is'),
        ("destroy tap04", '"tap04" is not an interface name: it must be N or virtN, with N in plain decimal'),
        ("create bridge 0", f'did you mean "create bridge0"? {A_NUMBER}'),
        ("ensure bridge 0 up", f'"bridge" is not a name: {NAMED}: did you mean "ensure bridge0"?'),
        ("destroy bridge 12", f'"bridge" is not a name: {NAMED}: did you mean "destroy bridge12"?'),
        ("bridge 0 add eth0", 'unknown command "bridge": did you mean "bridge0"?'),
        ("destroy bridge", f'"bridge" is not a name: {NAMED}; all stands for everything'),
        ("create virt", '"virt" is not an interface name: it must be N or virtN, with N in plain decimal'),
        ("virt03 up", '"virt03" is not an interface name: it must be virtN, with N in plain decimal'),
        ("ensure", '"ensure" needs an interface: ensure N | virtN [VERB ...], or ensure bridgeN [VERB ...]'),
        ("ensure up", f'"up" is not a name: {NAMED}'),
        ("destroy # all", '"destroy" needs an interface: destroy N | virtN | all, or destroy bridgeN'),
        ("destroy 3 4", '"4" is one word too many: destroy N | virtN | all'),
        ("destroy all 3", '"3" is one word too many: destroy N | virtN | all'),
        ("virt3", '"virt3" needs a verb after it'),
        ("virt3 # up", '"virt3" needs a verb after it'),
        ("virt3 mtu", '"mtu" needs a number: mtu N'),
        ("virt3 mtu # 1500", '"mtu" needs a number: mtu N'),
        ("virt3 carrier", '"carrier" needs a value: carrier always|open|off'),
        ("virt3 owner", '"owner" needs a user: owner USER'),
        ("bridge0 stp", '"stp" needs an interface, such as eth0 or virt3: stp IF'),
        ("bridge0 ifpriority virt3", '"ifpriority" needs a number: ifpriority IF N'),
        ("virt3 mtu big", 'mtu: "big" is not a number in plain decimal'),
        ("virt3 mtu 01500", 'mtu: "01500" is not a number in plain decimal'),
        ("virt3 link 1:0:5e:0:0:1", 'link: "1:0:5e:0:0:1" is a multicast address: no interface can have it'),
        ("virt3 taplink 3", 'taplink: "3" is not a MAC address such as b2:0a:00:0b:0e:03'),
        ("virt3 inet 10.0.3.1", 'inet: "10.0.3.1" needs a prefix length, as in 10.0.3.1/24'),
        ("create 5 inet up", 'inet: "up" is not an IPv4 address'),
        ("create 5 inet6 up", 'inet6: "up" is not an IPv6 address'),
        ("virt3 inet fd00::1", 'inet: "fd00::1" is an IPv6 address: use inet6'),
        ("virt3 inet 10.0.3/24", 'inet: "10.0.3" is not an IPv4 address'),
        ("virt3 inet 1.2.3.4/08", 'inet: "1.2.3.4/08": prefix length "08" is not a number in plain decimal'),
        ("virt3 inet fd00::1/64", 'inet: "fd00::1/64" is an IPv6 address: use inet6'),
        ("virt3 -inet fd00::1/64", '-inet: "fd00::1/64" is an IPv6 address: use -inet6'),
        ("bridge0 -inet6 10.0.3.1", '-inet6: "10.0.3.1" is an IPv4 address: use -inet'),
        ("virt3 inet 0.0.0.0/0", 'inet: "0.0.0.0" cannot be assigned to an interface'),
        ("virt3 inet 224.0.0.1/24", 'inet: "224.0.0.1" cannot be assigned to an interface'),
        ("virt3 inet6 10.0.3.1/24", 'inet6: "10.0.3.1/24" is an IPv4 address: use inet'),
        ("virt3 inet6 fe80::1%eth0/64", 'inet6: "fe80::1%eth0" has a zone index: write the address without it'),
        ("virt3 inet6 ff02::1/64", 'inet6: "ff02::1" cannot be assigned to an interface'),
        ("virt3 -inet6 ::", '-inet6: "::" cannot be assigned to an interface'),
        ("virt3 owner a:b", 'owner: "a:b" is neither a user name nor a number: write "owner a group b"'),
        ("virt3 group a:b", 'group: "a:b" is neither a group name nor a number: write "owner a group b"'),
        ("virt3 owner a:", 'owner: "a:" is neither a user name nor a number'),
        ("virt3 owner a/b:c", 'owner: "a/b:c" is neither a user name nor a number'),
        ("virt3 group -up", 'group: "-up" is neither a group name nor a number'),
        ("virt3 group 01", 'group: "01" is not a number in plain decimal'),
        ("virt3 mode rw", 'mode: "rw" is not an octal mode such as 0660'),
        ("virt3 exclusive all", 'exclusive: "all" is not one of read, both, none'),
        ("virt3 description a\tb", 'description: "a\\tb" contains an unprintable character'),
        ("create\x003", '"\\x00" is not a printable character, in "create\\x003"'),
        ("create 3\r", '"\\r" is not a printable character, in "create 3\\r"' + WINDOWS),
        ("create\r3", '"\\r" is not a printable character, in "create\\r3"'),
        ("create 3\ncreate 4", '"\\n" is not a printable character, in "create 3\\ncreate 4"'),
        ("# \x1b[2J", '"\\x1b" is not a printable character, in "# \\x1b[2J"'),
        ("virt3 \udcc3", '"\\xc3" is not UTF-8, in "virt3 \\xc3"'),
        ('say "\\', f'unknown command "say": {COMMANDS}'),
        ('"\\', f'unknown command "\\"\\\\": {COMMANDS}'),
    ],
)  # fmt: skip
def test_bad_grammar(line: str, sentence: str) -> None:
    number = errno.ERANGE if "outside the range" in sentence else errno.EINVAL
    assert refused(line) == (number, sentence)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("create 2147483640", '"2147483640": the number is outside the range 0 to 2147483639'),
        ("virt2147483640 up", '"virt2147483640": the number is outside the range 0 to 2147483639'),
        ("virt3 mtu 99999999", 'mtu: "99999999" is outside the range 68 to 65521'),
        ("virt3 mtu 67", 'mtu: "67" is outside the range 68 to 65521'),
        ("virt3 mtu -1", 'mtu: "-1" is outside the range 68 to 65521'),
        ("virt3 queue 0", 'queue: "0" is outside the range 1 to 524288, and the mount option max_queue may allow less'),
        (
            "virt3 backlog 524289",
            'backlog: "524289" is outside the range 0 to 524288, and the mount option max_backlog may allow less',
        ),
        ("virt3 mode 1777", 'mode: "1777" is outside the range 0 to 0777'),
        ("virt3 owner 4294967295", 'owner: "4294967295" is outside the range 0 to 4294967294'),
        ("virt3 inet 10.0.3.1/33", 'inet: "10.0.3.1/33": prefix length "33" is outside the range 0 to 32'),
        ("virt3 inet6 fd00::1/129", 'inet6: "fd00::1/129": prefix length "129" is outside the range 0 to 128'),
    ],
)
def test_number_out_of_range(line: str, sentence: str) -> None:
    assert refused(line) == (errno.ERANGE, sentence)


def test_description_too_long() -> None:
    assert parse_verbs("description " + "ü" * 256) == (Action("description", ("ü" * 256,)),)
    number, sentence = refused("virt3 description " + "ü" * 257)
    assert number == errno.EINVAL
    assert sentence == f'description: "{"ü" * 64}…" has 257 characters; at most 256 are allowed'


def test_name_too_long() -> None:
    assert refused("virt3 owner " + "a" * 257)[0] == errno.EINVAL


def test_a_line_has_so_many_bytes_and_no_more() -> None:
    assert parse("#" * LINE_MAX) is None
    for line in ("#" * (LINE_MAX + 1), "ä" * (LINE_MAX // 2) + "#"):
        assert refused(line) == (errno.E2BIG, f"the line has {LINE_MAX + 1} bytes; at most {LINE_MAX} are allowed")


def test_a_value_is_no_longer_than_a_line() -> None:
    with pytest.raises(VirtError, match=r"impair: .* longer than 65536 bytes") as caught:
        file_action("impair", "loss 1 " * 100_000)
    assert caught.value.errno == errno.E2BIG


def test_no_argument_takes_more_words_than_it_is_offered() -> None:
    """The longest impairment: each keyword with every optional number, for each direction."""
    way = (
        "delay 20ms 5ms 10% distribution normal loss gemodel 1% 2% 3% 4% duplicate 1% 2% reorder 1% 2% gap 5"
        " corrupt 1% 2% rate 1mbit limit 10 seed 1"
    )
    line = f"impair in {way} out {way}"
    assert len(line.split()) - 1 <= WORDS_MAX
    (action, up) = parse_verbs(f"{line} up")
    assert (action.verb, up.verb) == ("impair", "up")


def test_work_for_a_line_is_proportional_to_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many verbs that look at the words after them, and many words after them. Counts words, because time varies."""
    seen = 0
    rest = Words.rest

    def counted(self: Words) -> list[str]:
        nonlocal seen
        words = rest(self)
        seen += len(words)
        return words

    monkeypatch.setattr(Words, "rest", counted)
    number, _ = refused("virt3 " + "impair loss 1 " * (VERBS_MAX - 1) + "a " * 30_000)
    assert number == errno.EINVAL
    assert 0 < seen <= VERBS_MAX * WORDS_MAX


def test_a_line_has_so_many_verbs_and_no_more() -> None:
    assert len(parse_verbs("up " * VERBS_MAX)) == VERBS_MAX
    number, sentence = refused("virt3 " + "up " * VERBS_MAX + "down " * 10_000)
    assert (number, sentence) == (
        errno.E2BIG,
        f'"down" is one verb too many: a line may have at most {VERBS_MAX} verbs, so split it',
    )


def test_verb_that_cannot_be_undone_ends_its_line() -> None:
    assert parse_verbs("up flush # comment", BRIDGE) == (Action("up"), Action("flush"))
    for line in ("bridge0 flush up", "create bridge0 flush up"):
        assert refused(line) == (
            errno.EINVAL,
            '"up" is one word too many: flush cannot be undone, so it must end its line',
        )
    with pytest.raises(ValueError, match="nothing can follow flush"):
        format_actions((Action("flush"), Action("up")), BRIDGE, makes=True)


@pytest.mark.parametrize(
    ("file", "name"),
    [("/proc/4711/ns/net", "4711"), ("/run/netns/blue", "blue"), ("/var/run/netns/blue", "blue")],
)
def test_a_namespace_by_its_file(file: str, name: str) -> None:
    assert parse_verbs(f"netns {file}") == (Action("netns", (name,)),)


@pytest.mark.parametrize("file", ["/proc/self/ns/net", "/run/netns/", "/run/netns/..", "/run/netns/a/b", "/tmp/net"])
def test_a_file_that_is_no_namespace(file: str) -> None:
    assert refused(f"virt3 netns {file}") == (
        errno.EINVAL,
        f'netns: "{file}" is neither a network namespace name nor a process ID, '
        "nor a path such as /proc/PID/ns/net or /run/netns/NAME",
    )


MOVED = (Action("netns", ("blue",)), Action("up"), Action("mtu", (1400,)))


def test_netns_ends_a_line_that_changes() -> None:
    assert parse_verbs("up netns blue # comment") == (Action("up"), Action("netns", ("blue",)))
    sentence = '"up" is one word too many: netns cannot be undone, so it must end a line that changes an interface'
    assert refused("virt3 netns blue up") == (errno.EINVAL, sentence)
    with pytest.raises(VirtError, match=sentence):
        parse_verbs("netns blue up")
    with pytest.raises(ValueError, match="nothing can follow netns"):
        format_actions(MOVED)


@pytest.mark.parametrize("kind", ["create", "ensure"])
def test_netns_stands_anywhere_in_a_line_that_makes(kind: Kind) -> None:
    command = Command(kind, Unit(7), MOVED)
    assert parse(f"{kind} 7 netns blue up mtu 1400") == command
    assert format_command(command) == f"{kind} 7 netns blue up mtu 1400"
    assert parse("create netns blue up mtu 1400") == Command("create", None, MOVED)


@pytest.mark.parametrize("start", ["create 7", "ensure 7", "virt7"])
def test_a_bridge_that_the_move_would_take_away_is_refused(start: str) -> None:
    number, sentence = refused(f"{start} bridge br0 up netns blue")
    assert number == errno.EINVAL
    assert sentence == (
        "netns takes the tap out of its bridge: for a bridge here, create a second interface and cable the two;"
        ' for one in the new namespace, put "bridge br0" after netns'
    )
    assert parse(f"{start} bridge br0 -bridge netns blue") is not None
    if start != "virt7":
        assert parse(f"{start} netns blue bridge br0") is not None


# --- attribute files


@pytest.mark.parametrize(
    ("file", "text", "action"),
    [
        ("up", "1\n", Action("up")),
        ("up", "0\n", Action("down")),
        ("strict", "1", Action("strict")),
        ("strict", "0", Action("-strict")),
        ("mtu", " 1400 \n", Action("mtu", (1400,))),
        ("address", "b2:0a:00:0b:0e:03\n", Action("link", (MAC,))),
        ("tap/address", "b2:0a:00:0b:0e:03\n", Action("taplink", (MAC,))),
        ("queue", "\t16\r\n", Action("queue", (16,))),
        ("backlog", "0\n", Action("backlog", (0,))),
        ("exclusive", "none\n", Action("exclusive", ("none",))),
        ("description", " # my lab \n", Action("description", ("# my lab",))),
        ("description", "\n", Action("description", ("",))),
        ("description", "", Action("description", ("",))),
    ],
)
def test_writing_a_file(file: str, text: str, action: Action) -> None:
    assert file_action(file, text) == action


@pytest.mark.parametrize(
    ("file", "text", "number", "sentence"),
    [
        ("up", "2\n", errno.EINVAL, 'up: "2" is not 0 or 1'),
        ("up", "\n", errno.EINVAL, 'up: "" is not 0 or 1'),
        ("strict", "yes", errno.EINVAL, 'strict: "yes" is not 0 or 1'),
        ("mtu", "", errno.EINVAL, 'mtu: "" is not a number in plain decimal'),
        ("mtu", "1400\n1500\n", errno.EINVAL, 'mtu: "1400\\n1500" is not a number in plain decimal'),
        ("mtu", "99999999\n", errno.ERANGE, 'mtu: "99999999" is outside the range 68 to 65521'),
        ("mtu", "9" * 257, errno.EINVAL, f'mtu: "{"9" * 64}…" is longer than 256 characters'),
        ("address", "1:2", errno.EINVAL, 'address: "1:2" is not a MAC address such as b2:0a:00:0b:0e:03'),
        ("exclusive", "read both", errno.EINVAL, 'exclusive: "read both" is not one of read, both, none'),
        ("impair", "loss 10 %", errno.EINVAL, f'impair: "%" is not {SUCH}: write "10%", without a blank'),
        ("impair", "loss 1% los", errno.EINVAL, f'impair: "los" is not {SUCH}: did you mean "loss"?'),
        ("impair", "dealy 5ms", errno.EINVAL, f'impair: "dealy" is not {SUCH}: did you mean "delay"?'),
        ("filter", "udp\ntcp", errno.EINVAL, 'filter: "udp\\ntcp" contains a line break: write a single line'),
        (
            "description",
            "a\nb\n",
            errno.EINVAL,
            'description: "a\\nb" contains a line break: write a single line',
        ),
        (
            "description",
            "\udcff",
            errno.EINVAL,
            'description: "\\xff" contains an unprintable character',
        ),
    ],
)
def test_writing_a_wrong_value(file: str, text: str, number: int, sentence: str) -> None:
    with pytest.raises(VirtError) as caught:
        file_action(file, text)
    assert (caught.value.errno, caught.value.strerror) == (number, sentence)


def test_file_without_a_verb() -> None:
    with pytest.raises(KeyError):
        file_action("stats/rx_frames", "1")


# --- the table of verbs and the help


def test_help_has_every_command_and_verb() -> None:
    lines = [line.split("  ") for line in help_text().splitlines() if line.startswith("  ")]
    assert [parts[1] for parts in lines] == [*(form.usage for form in FORMS), *(verb.usage for verb in VERBS)]
    assert all(parts[-1].strip() for parts in lines)


def test_help_keeps_each_kind_of_socket_in_one_piece() -> None:
    """Otherwise copying it from the help would not give a valid word."""
    words = help_text().split()
    for form in re.findall(r"[a-z-]+:\S+", SOCKET_FORMS):
        assert form.strip(",") in [word.strip(",.") for word in words]


def test_help_fits_a_terminal() -> None:
    assert max(map(len, help_text().splitlines())) <= 100


def test_table_is_consistent() -> None:
    assert len({(verb.noun, verb.name) for verb in VERBS}) == len(VERBS)
    for verb in VERBS:
        assert not verb.rest_of_line or len(verb.arguments) == 1
        assert verb.file is None or len(verb.arguments) == 1 or verb.value is not None


def test_root_only_verbs() -> None:
    assert {verb.name for verb in VERBS if verb.root_only} == {
        "taplink", "inet", "inet6", "-inet", "-inet6", "bridge", "-bridge", "owner", "group",
        "netns", "antispoof", "-antispoof", "persist", "-persist",
    }  # fmt: skip


# --- formatting and parsing are inverse

NAMES = st.from_regex(r"[a-z_][a-z0-9_.@#-]{0,30}", fullmatch=True)
ACCOUNTS = NAMES | st.integers(0, arguments.ID_MAX).map(str)
STATIONS = st.binary(min_size=6, max_size=6).filter(lambda mac: any(mac) and not mac[0] & 1)
PRINTABLE = st.text().filter(str.isprintable).map(str.strip)


def assignable(address: IPv4Address | IPv6Address) -> bool:
    return not (address.is_unspecified or address.is_multicast)


ADDRESSES4 = st.ip_addresses(v=4).filter(assignable)
ADDRESSES6 = st.ip_addresses(v=6).filter(assignable)
IFNAMES = st.from_regex(r"[a-z][a-z0-9_.@-]{0,14}", fullmatch=True).filter(lambda name: name != "adopt")
INTERFACES4 = st.builds(lambda address, length: IPv4Interface((address, length)), ADDRESSES4, st.integers(0, 32))
INTERFACES6 = st.builds(lambda address, length: IPv6Interface((address, length)), ADDRESSES6, st.integers(0, 128))

IMPAIRED = st.one_of(
    impairments().map(lambda both: (("in", both), ("out", both))),
    st.tuples(st.tuples(st.sampled_from(["in", "out"]), impairments())),
    st.tuples(impairments(), impairments()).map(lambda two: (("in", two[0]), ("out", two[1]))),
)

VALUES: dict[str, st.SearchStrategy[object]] = {
    "mtu": st.integers(68, 65521),
    "link": STATIONS,
    "taplink": STATIONS,
    "inet": INTERFACES4,
    "inet6": INTERFACES6,
    "-inet": INTERFACES4 | ADDRESSES4,
    "-inet6": INTERFACES6 | ADDRESSES6,
    "owner": ACCOUNTS,
    "group": ACCOUNTS,
    "mode": st.integers(0, 0o777),
    "queue": st.integers(1, arguments.QUEUE_MAX),
    "backlog": st.integers(0, arguments.QUEUE_MAX),
    "exclusive": st.sampled_from(["read", "both", "none"]),
    "description": PRINTABLE,
    "mark": PRINTABLE.filter(lambda text: 0 < len(text) <= 256),
    "carrier": st.sampled_from(["always", "open", "off"]),
    "netns": NAMES.filter(lambda name: name != "."),
    "pace": st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.0, 10.25, 1e6]),
    "history": st.integers(0, 2**40),
    "impair": IMPAIRED,
    "filter": PRINTABLE,
    "bridge": IFNAMES,
    "maxaddr": st.integers(0, 2**32 - 1),
    "timeout": st.integers(0, 42949671),
    "maxage": st.integers(6, 40),
    "fwddelay": st.integers(2, 30),
    "hellotime": st.integers(1, 10),
    "priority": st.integers(0, 65535),
    "groupfwd": st.integers(0, 0xFFFF).map(lambda mask: mask & ~0x7),
    "deladdr": STATIONS,
}
SECOND: dict[str, st.SearchStrategy[object]] = {
    "static": STATIONS,
    "ifpriority": st.integers(0, 255),
    "ifpathcost": st.integers(1, 65535),
    "ifgroupfwd": st.integers(0, 0xFFFF).map(lambda mask: mask & ~0x2),
}


def values_of(verb: Verb) -> st.SearchStrategy[tuple[object, ...]]:
    first = [IFNAMES if argument is arguments.IFACE else VALUES[verb.name] for argument in verb.arguments[:1]]
    plain = st.tuples(*first, *(SECOND[verb.name] for _ in verb.arguments[1:]))
    options = st.sampled_from([(), *((word,) for word in verb.options)])
    return st.builds(lambda values, option: (*values, *option), plain, options)


def actions_of(verb: Verb) -> st.SearchStrategy[Action]:
    return st.builds(Action, st.just(verb.name), values_of(verb))


def chains_of(noun: Noun, *, makes: bool) -> st.SearchStrategy[tuple[Action, ...]]:
    """Return a strategy for the verbs of one line.

    makes: whether the line begins with create or ensure; netns may then be anywhere in it
    """

    def ends(verb: Verb) -> bool:
        return verb.rest_of_line or verb.ends_line or (verb.ends_change and not makes)

    inner = [actions_of(verb) for verb in VERBS if verb.noun == noun and not ends(verb)]
    last = [actions_of(verb) for verb in VERBS if verb.noun == noun and ends(verb)]
    chains = st.builds(
        lambda chain, last: (*chain, *last),
        st.lists(st.one_of(inner), max_size=6),
        st.lists(st.one_of(last), max_size=1),
    )
    return chains.filter(lambda chain: not taken_away(chain)) if noun == VIRT else chains


def taken_away(chain: tuple[Action, ...]) -> bool:
    """Return whether a later netns would take the tap out of the bridge that the line names."""
    names = " ".join(action.verb for action in chain if action.verb in ("bridge", "-bridge", "netns"))
    return re.search("(^| )bridge netns", names) is not None


CHAINS = {(noun, makes): chains_of(noun, makes=makes) for noun in (VIRT, BRIDGE) for makes in (False, True)}
UNITS = st.integers(0, 2147483639).map(Unit)
BRIDGES = st.integers(0, 999999999).map(lambda number: BridgeName(f"bridge{number}"))

PATHS = st.text("ab,:#/é", max_size=40).map("/{}".format)
HOSTS = st.sampled_from(["", "example.org", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
SOCKETS = st.one_of(
    st.builds(SocketName, st.sampled_from(["unix", "unix-listen", "seqpacket"]), PATHS),
    st.builds(SocketName, st.just("dgram"), PATHS.map(lambda path: path.replace(",", "")), st.just("") | PATHS),
    st.builds(SocketName, st.just("tcp-listen"), host=HOSTS, port=st.integers(1, 65535)),
    st.builds(SocketName, st.just("tcp"), host=HOSTS.filter(bool), port=st.integers(1, 65535)),
)


@st.composite
def cables(draw: st.DrawFn, kind: Kind) -> Command:
    first, second = draw(st.lists(UNITS, min_size=2, max_size=2, unique=True))
    impaired = kind == "cable" and draw(st.booleans())
    peer = draw(st.one_of(st.just(second), SOCKETS, *([st.none()] if kind == "uncable" else [])))
    return Command(kind, first, (Action("impair", (draw(IMPAIRED),)),) if impaired else (), peer)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    form = draw(st.sampled_from([form for form in FORMS if form.kind != "check"]))
    command = draw(commands_of(form))
    return replace(command, checks=draw(st.booleans()))


def mark_command() -> st.SearchStrategy[Command]:
    mark = next(verb for verb in VERBS if verb.name == "mark")
    return actions_of(mark).map(lambda action: Command("mark", None, (action,)))


@st.composite
def commands_of(draw: st.DrawFn, form: Form) -> Command:
    if form.kind == "mark":
        return draw(mark_command())
    if form.kind in ("cable", "uncable"):
        return draw(cables(form.kind))
    target: Unit | BridgeName | None = None
    if form.target != "none":
        target = draw(UNITS) if form.noun == VIRT else draw(BRIDGES)
    if form.target == "optional" and draw(st.booleans()):
        target = None
    chains = CHAINS[form.noun, form.kind != "change"].filter(lambda chain: form.kind != "change" or bool(chain))
    return Command(form.kind, target, draw(chains) if form.verbs else ())


@given(commands())
def test_command_survives(command: Command) -> None:
    assert parse(format_command(command)) == command


@pytest.mark.parametrize("noun", [VIRT, BRIDGE])
@given(st.data())
def test_actions_survive(noun: Noun, data: st.DataObject) -> None:
    actions = data.draw(CHAINS[noun, False])
    assert parse_verbs(format_actions(actions, noun), noun) == actions


def test_no_verb_follows_a_text() -> None:
    with pytest.raises(ValueError, match="nothing can follow description"):
        format_actions((Action("description", ("lab",)), Action("up")))


WORDS = "create ensure destroy help virt3 3 tap3 # \t 1500 -1 10.0.3.1/24 fd00::1/64 b2:0a:00:0b:0e:03 alice 0660 both"
WORDS += " unix:/a unix-listen:/ dgram:/a,/b dgram:/a, seqpacket:a tcp:h:1 tcp:[::1]:70000 tcp-listen:4000 udp:1"
WORDS += " bridge0 bridge bridge1000000000 adopt eth0 cable uncable virt4 4 in out delay 20ms loss 1% seed limit"
VOCABULARY = st.sampled_from([*(verb.name for verb in VERBS), *WORDS.split(" "), "\x00", "\udcff"])
LINES = st.text() | st.lists(VOCABULARY | st.text(max_size=3), max_size=8).map(" ".join)


@given(LINES)
def test_any_text_is_a_command_or_refused(line: str) -> None:
    try:
        command = parse(line)
    except VirtError as error:
        check_refusal(error)
    else:
        assert command is None or parse(format_command(command)) == command


@given(st.sampled_from([verb.file for verb in VERBS if verb.file]), LINES)
def test_any_text_is_a_value_or_refused(file: str, text: str) -> None:
    try:
        action = file_action(file, text)
    except VirtError as error:
        check_refusal(error)
    else:
        if action != Action("netns", ("",)):  # only the file accepts "" for the mount's namespace
            assert parse_verbs(format_actions((action,))) == (action,)


# --- impairments, filters and cables

LAN = Impairment(delay=20_000_000, loss=Share(1))
LOSS = Impairment(loss=Share(1))
BRACKETS = "; an IPv6 address needs brackets"
BOTH_ALREADY = 'follows an impairment of both directions: name both, as in "in delay 20ms out loss 1%"'


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "virt3 impair delay 20ms loss 1% mtu 1400",
            Command("change", Unit(3), (Action("impair", ((("in", LAN), ("out", LAN)),)), Action("mtu", (1400,)))),
        ),
        ("virt3 impair out loss 1% delay 20ms", Command("change", Unit(3), (Action("impair", ((("out", LAN),),)),))),
        ("virt3 -impair up", Command("change", Unit(3), (Action("-impair"), Action("up")))),
        ("virt3 -impair in up", Command("change", Unit(3), (Action("-impair", ("in",)), Action("up")))),
        (
            "create 3 up filter arp or (icmp and # this",
            Command("create", Unit(3), (Action("up"), Action("filter", ("arp or (icmp and # this",)))),
        ),
        ("virt3 filter", Command("change", Unit(3), (Action("filter", ("",)),))),
        ("cable 3 4", Command("cable", Unit(3), (), Unit(4))),
        ("cable virt3 virt4 # lab", Command("cable", Unit(3), (), Unit(4))),
        (
            "cable 3 4 in delay 20ms loss 1% out limit 5",
            Command(
                "cable", Unit(3), (Action("impair", ((("in", LAN), ("out", Impairment(limit=5))),)),), Unit(4)
            ),
        ),
        ("uncable virt4", Command("uncable", Unit(4))),
        ("uncable 4 3", Command("uncable", Unit(4), (), Unit(3))),
        (
            "cable 3 dgram:/run/a,/run/b loss 1%",
            Command(
                "cable",
                Unit(3),
                (Action("impair", ((("in", LOSS), ("out", LOSS)),)),),
                SocketName("dgram", "/run/a", "/run/b"),
            ),
        ),
        ("uncable 3 tcp:[::1]:4000", Command("uncable", Unit(3), (), SocketName("tcp", host="::1", port=4000))),
        ("cable 3 tcp-listen:4000", Command("cable", Unit(3), (), SocketName("tcp-listen", port=4000))),
    ],
)  # fmt: skip
def test_lines_about_wires(line: str, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("virt3 impair", 'impair: "impair" needs an impairment such as delay 20ms or loss 1%'),
        ("virt3 impair in", 'impair: "in" needs an impairment such as delay 20ms or loss 1%'),
        ("virt3 impair up", 'impair: "up" is not an impairment such as delay 20ms or loss 1%'),
        ("virt3 impair loss 1% wobble", f'"wobble" is neither {SUCH} nor a verb: "virtfs ctl help" lists the verbs'),
        (
            "virt3 impair loss 1% strct",
            f'"strct" is neither {SUCH} nor a verb: did you mean "strict"? "virtfs ctl help" lists the verbs',
        ),
        (
            "create 3 impair in loss 1% los",
            f'"los" is neither {SUCH} nor a verb: did you mean "loss"? "virtfs ctl help" lists the verbs',
        ),
        ("virt3 impair loss 1% up los", 'unknown verb "los": "virtfs ctl help" lists the verbs'),
        ("virt3 impair loss 1% in", f'impair: "in" {BOTH_ALREADY}'),
        ("virt3 impair in loss 1% in loss 2%", 'impair: "in" is given twice'),
        ("uncable", '"uncable" needs an interface: uncable A [B|SOCKET]'),
        ("cable", '"cable" needs an interface: cable A B|SOCKET [IMPAIRMENT ...]'),
        ("cable 3", '"cable" needs two ends: cable A B|SOCKET [IMPAIRMENT ...]'),
        ("cable 3 3", '"virt3" cannot be both ends of a cable'),
        ("cable 3 bridge0", f'"bridge0" {NO_END}: "virtN bridge bridge0" puts a tap into a bridge'),
        ("cable 3 br0", f'"br0" {NO_END}: "virtN bridge br0" puts a tap into a bridge'),
        ("cable 3 eth0", f'"eth0" {NO_END}: "bridgeN add eth0" puts an interface of the host into a bridge'),
        ("uncable eth0 3", f'"eth0" {NO_END}: "bridgeN add eth0" puts an interface of the host into a bridge'),
        ("cable tcp:h:1 3", '"tcp:h:1" must be the second end: write "cable N tcp:h:1"'),
        ("cable 3 4 up", 'impair: "up" is not an impairment such as delay 20ms or loss 1%'),
        ("cable 3 4 loss 1% up", f'"up" is not {SUCH}'),
        ("cable 3 4 delay 20ms los 1%", f'"los" is not {SUCH}: did you mean "loss"?'),
        ("cable 3 4 dealy 5ms", f'impair: "dealy" is not {SUCH}: did you mean "delay"?'),
        ("cable 3 unix:/run/a in delay 20ms jitter 5ms", f'"jitter" is not {SUCH}'),
        ("cable 3 4 delay 20ms out loss 1%", f'impair: "out" {BOTH_ALREADY}'),
        ("cable 3 udp:h:1", f'"udp:h:1" is not a socket: it must be {SOCKET_FORMS}'),
        ("cable 3 unix", f'"unix" is not a socket: it must be {SOCKET_FORMS}'),
        ("cable 3 tcp-listen:", f'"tcp-listen:" is not a socket: it must be {SOCKET_FORMS}'),
        ("cable 3 /run/a", f'"/run/a" is not a socket: it must be {SOCKET_FORMS}'),
        ("cable 3 unix:run/a", '"run/a" is not an absolute path'),
        ("cable 3 dgram:/run/a,", '"" is not an absolute path'),
        ("cable 3 tcp:4000", f'"tcp:4000" is not of the form tcp:HOST:PORT{BRACKETS}'),
        ("cable 3 tcp-listen:::1", f'"tcp-listen:::1" is not of the form tcp-listen:[HOST:]PORT{BRACKETS}'),
        ("cable 3 tcp:h:http", '"http" is not a number in plain decimal'),
        (f"cable 3 unix:/{'a' * 107}", f'"/{"a" * 63}…" is too long: the path of a socket has at most 107 bytes'),
        ("uncable 3 4 loss 1%", '"loss" is one word too many: uncable A [B|SOCKET]'),
    ],
)
def test_wrong_lines_about_wires(line: str, sentence: str) -> None:
    assert refused(line) == (errno.EINVAL, sentence)


# --- bridges


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("create bridge0", Command("create", BridgeName("bridge0"))),
        ("ensure bridge0 up", Command("ensure", BridgeName("bridge0"), (Action("up"),))),
        ("destroy bridge999999999", Command("destroy", BridgeName("bridge999999999"))),
        ("create bridge bridge0", Command("create", None, (Action("bridge", ("bridge0",)),))),
        ("create 3 bridge br-lan up", Command("create", Unit(3), (Action("bridge", ("br-lan",)), Action("up")))),
        ("virt3 -bridge", Command("change", Unit(3), (Action("-bridge"),))),
        (
            "bridge0 add eth0 adopt add virt3 static tap3 b2:a:0:b:e:3 # lab",
            Command(
                "change",
                BridgeName("bridge0"),
                (Action("add", ("eth0", "adopt")), Action("add", ("virt3",)), Action("static", ("tap3", MAC))),
            ),
        ),
        ("bridge0 add adopt", Command("change", BridgeName("bridge0"), (Action("add", ("adopt",)),))),
    ],
)
def test_lines_about_bridges(line: str, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "number", "sentence"),
    [
        ("bridge0", errno.EINVAL, '"bridge0" needs a verb after it'),
        ("bridge up", errno.EINVAL, 'unknown command "bridge": a verb goes after its interface, as in virt0 bridge'),
        (
            "create bridge03",
            errno.EINVAL,
            '"bridge03" is not a bridge name: it must be bridgeN, with N in plain decimal',
        ),
        ("bridge-1 up", errno.EINVAL, '"bridge-1" is not a bridge name: it must be bridgeN, with N in plain decimal'),
        (
            "create bridge1000000000",
            errno.ERANGE,
            '"bridge1000000000": the number is outside the range 0 to 999999999',
        ),
        ("bridge0 strict", errno.EINVAL, 'unknown verb "strict": "virtfs ctl help" lists the verbs'),
        *(
            (f"bridge0 {word} eth0", errno.EINVAL, f'unknown verb "{word}": did you mean "delete"? {VERBS_LISTED}')
            for word in ("remove", "del", "rm", "-add", "Delete")
        ),
        ("virt0 add eth0", errno.EINVAL, 'unknown verb "add": "virtfs ctl help" lists the verbs'),
        ("bridge0 add", errno.EINVAL, '"add" needs an interface, such as eth0 or virt3: add IF [adopt]'),
        ("bridge0 add a/b", errno.EINVAL, 'add: "a/b" is not a valid interface name'),
        (
            "bridge0 add interface1234567",
            errno.EINVAL,
            'add: "interface1234567" is longer than 15 bytes, the limit of an interface name',
        ),
        ("bridge0 groupfwd 8", errno.EINVAL, 'groupfwd: "8" is not a hexadecimal mask such as 0x4008'),
        ("bridge0 groupfwd 0x", errno.EINVAL, 'groupfwd: "0x" is not a hexadecimal mask such as 0x4008'),
        ("bridge0 groupfwd 0x10000", errno.ERANGE, 'groupfwd: "0x10000" is outside the range 0x0 to 0xffff'),
        (
            "bridge0 groupfwd 0x4",
            errno.ERANGE,
            'groupfwd: "0x4" has bit 0x4 set: clear it, since Linux does not forward LACP frames',
        ),
        (
            "bridge0 groupfwd 0xffff",
            errno.ERANGE,
            'groupfwd: "0xffff" has bit 0x1 set: clear it, since Linux does not forward spanning tree frames',
        ),
        (
            "bridge0 ifgroupfwd tap3 0xffff",
            errno.ERANGE,
            'ifgroupfwd: "0xffff" has bit 0x2 set: clear it, since Linux does not forward pause frames',
        ),
        ("bridge0 hellotime 11", errno.ERANGE, 'hellotime: "11" is outside the range 1 to 10'),
        ("bridge0 maxage 5", errno.ERANGE, 'maxage: "5" is outside the range 6 to 40'),
        ("bridge0 fwddelay 31", errno.ERANGE, 'fwddelay: "31" is outside the range 2 to 30'),
        ("bridge0 ifpriority tap3 256", errno.ERANGE, 'ifpriority: "256" is outside the range 0 to 255'),
    ],
)
def test_wrong_lines_about_bridges(line: str, number: int, sentence: str) -> None:
    assert refused(line) == (number, sentence)


@pytest.mark.parametrize(
    ("text", "action"),
    [("bridge0\n", Action("bridge", ("bridge0",))), ("\n", Action("-bridge")), ("", Action("-bridge"))],
)
def test_writing_the_name_of_a_bridge(text: str, action: Action) -> None:
    assert file_action("tap/bridge", text) == action
