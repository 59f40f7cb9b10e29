"""Numbers as text. Each parse function has a format function that writes what it reads.

EINVAL means malformed text, ERANGE a number out of range; the sentence quotes the text. Only ASCII digits count, and a
leading zero is refused where other tools would read the number as octal.
"""

import re
from decimal import Decimal
from errno import EINVAL, ERANGE
from fractions import Fraction

from virtfs.core.errors import VirtError
from virtfs.core.ids import BRIDGE_MAX, UNIT_MAX, BridgeName, Unit
from virtfs.core.quoting import quoted

INT64_MAX = 2**63 - 1
MODE_MAX = 0o777

_NATURAL = re.compile(r"0|[1-9][0-9]*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_OCTAL = re.compile(r"[0-7]+")
_NAME = re.compile(r"(virt|tap|)(.*)", re.DOTALL)
_SIZE = re.compile(r"(0|[1-9][0-9]*)([KMGkmg]?)")
_FACTOR = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MEASURE = re.compile(r"((?:0|[1-9][0-9]*)(?:\.[0-9]+)?)([A-Za-z]*|%)")
_DIGITS = 20  # one more than 2**63 has; int() refuses numbers with thousands of digits


def parse_unit(text: str) -> Unit:
    """Return the n of virt<n>: 0 to 2147483639, plain decimal without sign, blank or leading zero."""
    if not _NATURAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an interface number in plain decimal")
    return Unit(parse_int(text, 0, UNIT_MAX))


def parse_unit_name(text: str, *prefixes: str) -> Unit:
    """Return the n of a name such as "virt3", "tap3" or "3". `prefixes` lists the allowed prefixes, "" for a bare
    number.
    """
    match = _NAME.fullmatch(text)
    assert match is not None  # the pattern matches any text
    prefix, digits = match.groups()
    if prefix not in prefixes or not _NATURAL.fullmatch(digits):
        allowed = " or ".join(f"{prefix}N" for prefix in prefixes)
        raise VirtError(
            EINVAL, f"{quoted(text)} is not an interface name: it must be {allowed}, with N in plain decimal"
        )
    try:
        return parse_unit(digits)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is out of range 0 to {UNIT_MAX}") from None


def parse_bridge_name(text: str) -> BridgeName:
    """Return a bridge name: "bridge" and a number from 0 to 999999999, written like a unit."""
    digits = text.removeprefix("bridge")
    if digits == text or not _NATURAL.fullmatch(digits):
        raise VirtError(EINVAL, f"{quoted(text)} is not a bridge name: it must be bridgeN, with N in plain decimal")
    try:
        parse_int(digits, 0, BRIDGE_MAX)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is out of range 0 to {BRIDGE_MAX}") from None
    return BridgeName(text)


def parse_int(text: str, low: int, high: int) -> int:
    """Return a plain decimal number from low to high, both within 64 bits; a negative number is out of range."""
    if not _INTEGER.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a number in plain decimal")
    if len(text) > _DIGITS or not low <= int(text) <= high:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range {low} to {high}")
    return int(text)


def parse_mode(text: str) -> int:
    """Return permission bits from octal text, 0 to 0777, with or without leading zeros as in chmod(1)."""
    if not _OCTAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an octal mode such as 0660")
    bits = int(text, 8)  # a power-of-two base has no limit on digits
    if bits > MODE_MAX:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0 to 0777")
    return bits


def format_mode(bits: int) -> str:
    """Return four octal digits: "0660"."""
    return f"{bits:04o}"


_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Return a number of bytes from a whole number; K, M or G, in either case, multiply by 1024, 1024² or 1024³."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise VirtError(EINVAL, f"{quoted(text)} is not a size such as 4096, 64K, 4M or 1G")
    return _whole(text, Fraction(_bounded(text, match[1])) * _SIZES[match[2].upper()], "bytes")


def format_size(size: int) -> str:
    """Return bytes in the largest unit that leaves a whole number: "4M", "1500"."""
    return _format(size, _SIZES)


# tc(8), RATES: a bare number and "bit" are bits a second, "bps" bytes; k m g t are powers of 1000, ki … of 1024.
_PREFIXES = {"": 1} | {
    prefix + binary: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for binary, base in (("", 1000), ("i", 1024))
}
_RATES = {"": 1} | {
    prefix + unit: scale * bits for prefix, scale in _PREFIXES.items() for unit, bits in (("bit", 1), ("bps", 8))
}


def parse_rate(text: str) -> int:
    """Return bits a second from tc's notation: 10mbit, 1.5gbit, 64kbps (kilobytes), 1mibit, or bits without a unit."""
    return _measure(text, _RATES, "bits a second", "a rate such as 10mbit")


def format_rate(rate: int) -> str:
    """Return bits a second in the largest SI unit that leaves a whole number: "10mbit", "0bit"."""
    return _format(rate, {f"{prefix}bit": _RATES[f"{prefix}bit"] for prefix in ("", "k", "m", "g", "t")})


# tc(8), TIMES: a bare number is microseconds. The manual ends at microseconds, but tc accepts ns too.
_TIMES = {"": 1000} | {
    word: scale
    for words, scale in (
        (("ns", "nsec", "nsecs"), 1),
        (("us", "usec", "usecs"), 10**3),
        (("ms", "msec", "msecs"), 10**6),
        (("s", "sec", "secs"), 10**9),
    )
    for word in words
}


def parse_time(text: str) -> int:
    """Return nanoseconds from tc's notation: 20ms, 1.5s, 100us, 5ns, or microseconds without a unit."""
    return _measure(text, _TIMES, "nanoseconds", "a time such as 20ms")


def format_time(nanoseconds: int) -> str:
    """Return nanoseconds in the largest unit that leaves a whole number: "20ms", "0ns"."""
    return _format(nanoseconds, {unit: _TIMES[unit] for unit in ("ns", "us", "ms", "s")})


def parse_percent(text: str) -> float:
    """Return a percentage from 0 to 100, which may have decimals; "%" is optional, as in tc."""
    match = _MEASURE.fullmatch(text)
    if not match or match[2] not in ("", "%"):
        raise VirtError(EINVAL, f"{quoted(text)} is not a percentage such as 0.5%")
    percent = float(match[1])
    if percent > 100:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0% to 100%")
    return percent


def format_percent(percent: float) -> str:
    """Return the shortest text that reads back as the same number: "0.5%", "1%"."""
    digits = f"{Decimal(repr(percent)):f}"  # never an exponent
    return f"{digits.removesuffix('.0')}%"


def parse_factor(text: str) -> float:
    """Return 0, or a decimal factor from 0.001 to 1000000, such as 2 or 0.5."""
    if not _FACTOR.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a factor such as 0, 0.5 or 2")
    factor = float(_bounded(text, text))
    if factor and not 0.001 <= factor <= 1_000_000:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0.001 to 1000000")
    return factor


def format_factor(factor: float) -> str:
    """Return the text that parse_factor() reads as this factor: "2", "0.5"."""
    return repr(float(factor)).removesuffix(".0")


def _measure(text: str, scales: dict[str, int], unit: str, example: str) -> int:
    """Return a decimal number with a unit of `scales`, in either case as in tc, in the smallest unit."""
    match = _MEASURE.fullmatch(text)
    if not match or match[2].lower() not in scales:
        raise VirtError(EINVAL, f"{quoted(text)} is not {example}")
    return _whole(text, Fraction(_bounded(text, match[1])) * scales[match[2].lower()], unit)


def _bounded(text: str, number: str) -> str:
    """Return `number`, unless it has too many digits to be sensible."""
    whole, _, fraction = number.partition(".")
    if len(whole) > _DIGITS:
        raise VirtError(ERANGE, f"{quoted(text)} is too large")
    if len(fraction) > _DIGITS:
        raise VirtError(EINVAL, f"{quoted(text)} has more than {_DIGITS} decimal places")
    return number


def _whole(text: str, value: Fraction, unit: str) -> int:
    if value.denominator != 1:
        raise VirtError(EINVAL, f"{quoted(text)} is not a whole number of {unit}")
    if value > INT64_MAX:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0 to {INT64_MAX} {unit}")
    return int(value)


def _format(value: int, scales: dict[str, int]) -> str:
    """Return `value` in the last unit of `scales` (smallest first) that divides it; zero in the first."""
    unit = [unit for unit, scale in scales.items() if value % scale == 0 and (value or scale == 1)][-1]
    return f"{value // scales[unit]}{unit}"
