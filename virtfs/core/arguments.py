"""The kinds of arguments of ctl verbs. Each kind has a name for the help text, a parser and a formatter."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import E2BIG, EINVAL, ERANGE
from typing import Any

from virtfs.core import ethernet, impairment_text, quantities
from virtfs.core.errors import VirtError
from virtfs.core.impairment import BOTH, Direction, Impairment
from virtfs.core.quoting import quoted

# The kernel's maximum txqueuelen; a larger value fails with EPERM. A tap's ring is a single allocation of pointers, at
# most KMALLOC_MAX_SIZE (4 MiB) long (include/linux/ptr_ring.h). A mount has a lower limit by default:
# core/limits.py.
QUEUE_MAX = 524288
DESCRIPTION_MAX = 256  # characters
FILTER_MAX = 4096  # characters
NAME_MAX = 256  # characters in the name of a user, group or network namespace; glibc's LOGIN_NAME_MAX
IFNAME_MAX = 15  # bytes; IFNAMSIZ without the NUL
ID_MAX = 2**32 - 2  # (uid_t)-1 means "unchanged" to chown(2)

# The name of a user or group. A colon is not allowed (passwd(5)), but "@" is: directory services have names such as
# user@example. The name cannot begin with "-", as in the verb -bridge, or "#", which starts a comment.
_NAME = re.compile(r"[^-#:/,\s][^:/,\s]*")
_NETNS = re.compile(r"[^#/\s][^/\s]*")  # a file name without white space, so that it is a single word of a line
_NETNS_FILE = re.compile(r"/proc/([0-9]+)/ns/net|(?:/var)?/run/netns/(.*)")
_DIGITS = re.compile(r"[0-9]+")
_HEX = re.compile(r"0x[0-9A-Fa-f]{1,16}|0")
_NOT_IN_IFNAME = re.compile(r"[/:\s]")


@dataclass(frozen=True, slots=True)
class Argument:
    """A kind of argument.

    name: what the help text calls the argument.
    parse: converts a text to a value, or raises a VirtError whose message quotes the text.
    format: converts a value to a text, so that parse(format(x)) == x.
    take: a function that parses an argument of several words; None if the argument is a single word. The function gets
    the remaining words of the line, and returns the value and the number of words that it has parsed.
    noun: what is missing if the line ends before the argument, for error messages.
    """

    name: str
    parse: Callable[[str], object]
    format: Callable[[Any], str] = str
    take: Callable[[Sequence[str]], tuple[object, int]] | None = None
    noun: str = "a value"


def number(name: str, low: int, high: int) -> Argument:
    """Return the argument kind for a decimal number from `low` to `high`; the value is an int."""
    return Argument(name, lambda text: quantities.parse_int(text, low, high), noun="a number")


def _limited(low: int, option: str) -> Argument:
    """Return the argument kind for a number of frames that a mount option limits further."""

    def parse(text: str) -> int:
        try:
            return quantities.parse_int(text, low, QUEUE_MAX)
        except VirtError as error:
            less = f", and the mount option {option} may allow less" if error.errno == ERANGE else ""
            raise VirtError(error.errno, f"{error.strerror}{less}") from None

    return Argument("N", parse, noun="a number")


def one_of(*words: str) -> Argument:
    """Return the argument kind for one of the given words; the value is that word."""

    def parse(text: str) -> str:
        if text not in words:
            raise VirtError(EINVAL, f"{quoted(text)} is not one of {', '.join(words)}")
        return text

    return Argument("|".join(words), parse)


def account(name: str) -> Argument:
    """Return the argument kind for a user or group, given by name or number.

    The value is the text itself, because core makes no system calls and cannot look up accounts.
    """

    def parse(text: str) -> str:
        if _DIGITS.fullmatch(text):
            quantities.parse_int(text, 0, ID_MAX)
        elif len(text) > NAME_MAX or not text.isprintable() or not _NAME.fullmatch(text):
            raise VirtError(EINVAL, f"{quoted(text)} is neither a {name.lower()} name nor a number{_as_chown(text)}")
        return text

    return Argument(name, parse, noun=f"a {name.lower()}")


def _as_chown(text: str) -> str:
    """Return what to write instead of USER:GROUP, the form of chown(1), as the end of an error message."""
    user, colon, group = text.partition(":")
    if not colon or not all(_NAME.fullmatch(name) and name.isprintable() for name in (user, group)):
        return ""
    remedy = f"owner {user} group {group}"
    return f": write {quoted(remedy)}"


def parse_description(text: str) -> str:
    """Check a description and return it unchanged: 0 to 256 printable characters; "#" is allowed."""
    if len(text) > DESCRIPTION_MAX:
        raise VirtError(EINVAL, f"{quoted(text)} has {len(text)} characters; at most {DESCRIPTION_MAX} are allowed")
    _check_printable(text)
    return text


def _check_printable(text: str) -> None:
    if "\n" in text:  # from a file: a line of ctl has none
        raise VirtError(EINVAL, f"{quoted(text)} contains a line break: write a single line")
    if not text.isprintable():
        raise VirtError(EINVAL, f"{quoted(text)} contains an unprintable character")


def parse_mark(text: str) -> str:
    """Check the text of a mark and return it unchanged. It must have 1 to 256 printable characters. "#" is allowed."""
    if not text:
        raise VirtError(EINVAL, 'a mark needs a text, as in "mark login begins"')
    return parse_description(text)


def parse_interface4(text: str) -> ipaddress.IPv4Interface:
    """Parse an IPv4 address with a prefix length, such as "10.0.3.1/24"."""
    return _interface4(text, "inet6")


def _interface4(text: str, other: str) -> ipaddress.IPv4Interface:
    _expect_version(text, 4, other)
    address, length = _address_and_length(text, "10.0.3.1/24", 32, _address4)
    return ipaddress.IPv4Interface((_address4(address), length))


def parse_interface6(text: str) -> ipaddress.IPv6Interface:
    """Parse an IPv6 address with a prefix length, such as "fd00::1/64". A zone index is refused."""
    return _interface6(text, "inet")


def _interface6(text: str, other: str) -> ipaddress.IPv6Interface:
    _expect_version(text, 6, other)
    address, length = _address_and_length(text, "fd00::1/64", 128, _address6)
    return ipaddress.IPv6Interface((_address6(address), length))


def parse_address4(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv4Address:
    """Parse an IPv4 address. The prefix length is optional: "10.0.3.1/24" or "10.0.3.1"."""
    other = "-inet6"
    _expect_version(text, 4, other)
    return _interface4(text, other) if "/" in text else _address4(text)


def parse_address6(text: str) -> ipaddress.IPv6Interface | ipaddress.IPv6Address:
    """Parse an IPv6 address. The prefix length is optional: "fd00::1/64" or "fd00::1"."""
    other = "-inet"
    _expect_version(text, 6, other)
    return _interface6(text, other) if "/" in text else _address6(text)


def parse_interface_name(text: str) -> str:
    """Check the name of a host interface and return it unchanged (net/core/dev.c dev_valid_name).

    A name such as virt3 is also valid, and stands for the tap of that unit.
    """
    if len(text.encode("utf-8", "surrogateescape")) > IFNAME_MAX:
        raise VirtError(EINVAL, f"{quoted(text)} is longer than {IFNAME_MAX} bytes, the limit of an interface name")
    if text in ("", ".", "..") or not text.isprintable() or _NOT_IN_IFNAME.search(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a valid interface name")
    return text


# One entry for each direction that the user named; both directions if the user named none.
Impairments = tuple[tuple[Direction, Impairment], ...]


def take_impairments(words: Sequence[str]) -> tuple[Impairments, int]:
    """Parse the tc-netem words at the beginning of `words`.

    The words are one impairment for both directions, or one after `in`, one after `out`, or one after each.
    Return the impairments and the number of words taken.
    """
    found, count = impairment_text.parse_impairments(words)
    return tuple(found.items()), count


def parse_impairments(text: str) -> Impairments:
    """Parse a text that consists of impairments only. VirtError EINVAL: a word begins no impairment."""
    words = text.split()
    found, count = take_impairments(words)
    if count < len(words):
        hint = quantities.hint_of_unit(words[count - 1], words[count])
        such = f"{quoted(words[count])} is not {impairment_text.EXAMPLE}{hint}"
        raise VirtError(EINVAL, such if hint else impairment_text.unknown(words[count]))
    return found


def format_impairments(impairments: Impairments) -> str:
    """Return the words that take_impairments() parses into these impairments."""
    found = dict(impairments)
    texts = {
        direction: impairment_text.format_impairment(one) or f"limit {one.limit}" for direction, one in found.items()
    }
    if found.keys() == set(BOTH) and found["in"] == found["out"]:
        return texts["in"]
    return " ".join(f"{direction} {words}" for direction, words in texts.items())


def parse_filter(text: str) -> str:
    """Check the characters and the length of a tcpdump expression, and return it unchanged.

    libpcap compiles the expression later. The empty expression passes every frame.
    """
    _check_printable(text)
    if len(text) > FILTER_MAX:
        raise VirtError(E2BIG, f"filter {quoted(text)} has {len(text)} characters; at most {FILTER_MAX} are allowed")
    return text


def group_mask(refused: dict[int, str]) -> Argument:
    """Return the argument kind for a hexadecimal mask of link-local groups. Bit N means the group 01:80:c2:00:00:0N.

    refused: maps each bit that Linux does not accept to the name of the frames that use this bit's group
    (net/bridge/br_private.h BR_GROUPFWD_RESTRICTED, BR_GROUPFWD_MACPAUSE).
    """

    def parse(text: str) -> int:
        if not _HEX.fullmatch(text):
            raise VirtError(EINVAL, f"{quoted(text)} is not a hexadecimal mask such as 0x4008")
        mask = int(text, 16)
        if mask > 0xFFFF:
            raise VirtError(ERANGE, f"{quoted(text)} is outside the range 0x0 to 0xffff")
        for bit, what in refused.items():
            if mask & bit:
                raise VirtError(
                    ERANGE, f"{quoted(text)} has bit {bit:#x} set: clear it, since Linux does not forward {what}"
                )
        return mask

    return Argument("MASK", parse, hex, noun="a mask, such as 0x4008")


def parse_netns(text: str) -> str:
    """Check the name of a network namespace (ip-netns(8)) or a process ID, and return it.

    The file of either, such as "/proc/4711/ns/net", stands for it. "" means the daemon's own namespace.
    """
    file = _NETNS_FILE.fullmatch(text)
    name = file[1] or file[2] or "." if file else text
    if name and (name in (".", "..") or len(name) > NAME_MAX or not _NETNS.fullmatch(name) or not name.isprintable()):
        files = ", nor a path such as /proc/PID/ns/net or /run/netns/NAME" if "/" in text else ""
        raise VirtError(EINVAL, f"{quoted(text)} is neither a network namespace name nor a process ID{files}")
    return name


def _address_and_length(text: str, example: str, longest: int, check: Callable[[str], object]) -> tuple[str, int]:
    """Split an address with a prefix length. check: raises a VirtError for a text that is not an address."""
    address, slash, length = text.partition("/")
    if not slash:
        check(address)
        raise VirtError(EINVAL, f"{quoted(text)} needs a prefix length, as in {example}")
    try:
        return address, quantities.parse_int(length, 0, longest)
    except VirtError as error:
        raise VirtError(error.errno, f"{quoted(text)}: prefix length {error.strerror}") from None


def _expect_version(text: str, version: int, other: str) -> None:
    """Raise EINVAL for an IP address of the other version. other: the verb that takes it."""
    with suppress(ValueError):
        if ipaddress.ip_address(text.partition("/")[0]).version != version:
            raise VirtError(EINVAL, f"{quoted(text)} is an IPv{10 - version} address: use {other}")


def _address4(text: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise VirtError(EINVAL, f"{quoted(text)} is not an IPv4 address") from None
    _check_assignable(text, address)
    return address


def _address6(text: str) -> ipaddress.IPv6Address:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise VirtError(EINVAL, f"{quoted(text)} is not an IPv6 address") from None
    if address.scope_id is not None:
        raise VirtError(EINVAL, f"{quoted(text)} has a zone index: write the address without it")
    _check_assignable(text, address)
    return address


def _check_assignable(text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Raise EINVAL for an address that no interface can have: multicast, ::, and 0.0.0.0.

    The check is needed because the kernel accepts 0.0.0.0 but ignores it (net/ipv4/devinet.c __inet_insert_ifa).
    """
    if address.is_unspecified or address.is_multicast:
        raise VirtError(EINVAL, f"{quoted(text)} cannot be assigned to an interface")


MTU = number("N", ethernet.MTU_MIN, ethernet.MTU_MAX)
QUEUE = _limited(1, "max_queue")
BACKLOG = _limited(0, "max_backlog")
MAC = Argument("MAC", ethernet.parse_station_mac, ethernet.format_mac, noun="a MAC address")
INET = Argument("A/n", parse_interface4, noun="an address, such as 10.0.3.1/24")
INET6 = Argument("A/n", parse_interface6, noun="an address, such as fd00::1/64")
INET_KNOWN = Argument("A[/n]", parse_address4, noun="an address, such as 10.0.3.1")
INET6_KNOWN = Argument("A[/n]", parse_address6, noun="an address, such as fd00::1")
USER = account("USER")
GROUP = account("GROUP")
MODE = Argument("OCTAL", quantities.parse_mode, quantities.format_mode, noun="a mode, such as 0660")
CARRIER = one_of("always", "open", "off")
NETNS = Argument("NAME|PID", parse_netns, noun="a network namespace or a process")
EXCLUSIVE = one_of("read", "both", "none")
IMPAIRMENTS = Argument("[in|out] IMPAIRMENT ...", parse_impairments, format_impairments, take_impairments)
FILTER = Argument("EXPRESSION", parse_filter)
FACTOR = Argument("FACTOR", quantities.parse_factor, quantities.format_factor, noun="a number")
SIZE = Argument("SIZE", quantities.parse_size, quantities.format_size, noun="a size, such as 64K")
DESCRIPTION = Argument("TEXT", parse_description)
MARK = Argument("TEXT", parse_mark)
IFACE = Argument("IF", parse_interface_name, noun="an interface, such as eth0 or virt3")
BRIDGE = Argument("NAME", parse_interface_name, noun="a bridge, such as bridge0")

# The ranges that Linux accepts for the arguments of brconfig(8). Linux stores a timeout in hundredths of a second, as a
# 32-bit number whose maximum means never. The limits of the spanning tree are those of IEEE 802.1D
# (net/bridge/br_private_stp.h).
MAXADDR = number("N", 0, 2**32 - 1)
TIMEOUT = number("SECONDS", 0, 42949671)
MAXAGE = number("SECONDS", 6, 40)
FWDDELAY = number("SECONDS", 2, 30)
HELLOTIME = number("SECONDS", 1, 10)
PRIORITY = number("N", 0, 65535)
IFPRIORITY = number("N", 0, 255)
IFPATHCOST = number("N", 1, 65535)

# Measured: in group_fwd_mask, Linux refuses bits 0 to 2 for a bridge, and bit 1 for a port. It accepts all others.
_PAUSE = {0x2: "pause frames"}
GROUPFWD = group_mask({0x1: "spanning tree frames", **_PAUSE, 0x4: "LACP frames"})
IFGROUPFWD = group_mask(_PAUSE)
