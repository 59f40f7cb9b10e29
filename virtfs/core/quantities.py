"""Numbers as text: each parse function with the format function that writes what it reads.

EINVAL is text that is not of the form, ERANGE a number out of its range; the sentence quotes the text. Digits
are ASCII's, and a leading zero is refused where other tools would read it as octal.
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
_DIGITS = 20  # as many as 2**63 has and one more: Python refuses to read numbers of thousands of digits


def parse_unit(text: str) -> Unit:
    """The n of virt<n>: 0 … 2147483639, plain decimal without sign, blank or leading zero."""
    if not _NATURAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an interface number in plain decimal")
    return Unit(parse_int(text, 0, UNIT_MAX))


def parse_unit_name(text: str, *prefixes: str) -> Unit:
    """The n of a name such as "virt3", "tap3" or "3"; `prefixes` are those allowed ("" for a bare number)."""
    match = _NAME.fullmatch(text)
    assert match is not None  # the pattern takes any text
    prefix, digits = match.groups()
    if prefix not in prefixes or not _NATURAL.fullmatch(digits):
        allowed = " or ".join(f"{prefix}N" for prefix in prefixes)
        raise VirtError(EINVAL, f"{quoted(text)} is not an interface's name: {allowed}, N in plain decimal")
    try:
        return parse_unit(digits)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is out of range 0 to {UNIT_MAX}") from None


def parse_bridge_name(text: str) -> BridgeName:
    """A bridge's name: "bridge" and a number, 0 … 999999999, under the rule of a unit."""
    digits = text.removeprefix("bridge")
    if digits == text or not _NATURAL.fullmatch(digits):
        raise VirtError(EINVAL, f"{quoted(text)} is not a bridge's name: bridgeN, N in plain decimal")
    try:
        parse_int(digits, 0, BRIDGE_MAX)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is out of range 0 to {BRIDGE_MAX}") from None
    return BridgeName(text)


def parse_int(text: str, low: int, high: int) -> int:
    """A plain decimal number from low to high, both within 64 bits; one below zero is out of range."""
    if not _INTEGER.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a number in plain decimal")
    if len(text) > _DIGITS or not low <= int(text) <= high:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range {low} to {high}")
    return int(text)


def parse_bool(text: str) -> bool:
    """Only "0" and "1"."""
    if text not in ("0", "1"):
        raise VirtError(EINVAL, f"{quoted(text)} is not 0 or 1")
    return text == "1"


def format_bool(value: bool) -> str:
    """As parse_bool reads it."""
    return str(int(value))


def parse_mode(text: str) -> int:
    """Permission bits in octal, 0 … 0777, with or without leading zeros as chmod(1)."""
    if not _OCTAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an octal mode such as 0660")
    bits = int(text, 8)  # a power-of-two base has no limit on digits
    if bits > MODE_MAX:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0 to 0777")
    return bits


def format_mode(bits: int) -> str:
    """Four octal digits: "0660"."""
    return f"{bits:04o}"


_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes: a whole number, with K, M or G (either case) times 1024, 1024², 1024³."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise VirtError(EINVAL, f"{quoted(text)} is not a size such as 4096, 64K, 4M or 1G")
    return _whole(text, Fraction(_bounded(text, match[1])) * _SIZES[match[2].upper()], "bytes")


def format_size(size: int) -> str:
    """Bytes with the largest unit that leaves a whole number: "4M", "1500"."""
    return _format(size, _SIZES)


# tc(8), RATES: the bare number and "bit" are bits a second, "bps" bytes; k m g t count in 1000, ki … in 1024.
_PREFIXES = {"": 1} | {
    prefix + binary: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for binary, base in (("", 1000), ("i", 1024))
}
_RATES = {"": 1} | {
    prefix + unit: scale * bits for prefix, scale in _PREFIXES.items() for unit, bits in (("bit", 1), ("bps", 8))
}


def parse_rate(text: str) -> int:
    """Bits a second in tc's words: 10mbit, 1.5gbit, 64kbps (kilobytes), 1mibit, or a bare number of bits."""
    return _measure(text, _RATES, "bits a second", "a rate such as 10mbit")


def format_rate(rate: int) -> str:
    """Bits a second with the largest SI unit that leaves a whole number: "10mbit", "0bit"."""
    return _format(rate, {f"{prefix}bit": _RATES[f"{prefix}bit"] for prefix in ("", "k", "m", "g", "t")})


# tc(8), TIMES: the bare number is microseconds. The manual stops at microseconds, tc itself knows ns as well.
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
    """Nanoseconds of a time in tc's words: 20ms, 1.5s, 100us, 5ns, or a bare number of microseconds."""
    return _measure(text, _TIMES, "nanoseconds", "a time such as 20ms")


def format_time(nanoseconds: int) -> str:
    """Nanoseconds with the largest unit that leaves a whole number: "20ms", "0ns"."""
    return _format(nanoseconds, {unit: _TIMES[unit] for unit in ("ns", "us", "ms", "s")})


def parse_percent(text: str) -> float:
    """0 … 100, whole or with a decimal point; "%" may follow, as in tc."""
    match = _MEASURE.fullmatch(text)
    if not match or match[2] not in ("", "%"):
        raise VirtError(EINVAL, f"{quoted(text)} is not a percentage such as 0.5%")
    percent = float(match[1])
    if percent > 100:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0% to 100%")
    return percent


def format_percent(percent: float) -> str:
    """The shortest text that reads back as the same number: "0.5%", "1%"."""
    digits = f"{Decimal(repr(percent)):f}"  # never an exponent
    return f"{digits.removesuffix('.0')}%"


def parse_factor(text: str) -> float:
    """0, or a decimal factor of 0.001 to 1000000, such as 2 or 0.5."""
    if not _FACTOR.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a factor such as 0, 0.5 or 2")
    factor = float(_bounded(text, text))
    if factor and not 0.001 <= factor <= 1_000_000:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range 0.001 to 1000000")
    return factor


def format_factor(factor: float) -> str:
    """As parse_factor reads it: "2", "0.5"."""
    return repr(float(factor)).removesuffix(".0")


def _measure(text: str, scales: dict[str, int], unit: str, example: str) -> int:
    """A decimal number and a unit of `scales` (either case, as tc): a whole number of the smallest unit."""
    match = _MEASURE.fullmatch(text)
    if not match or match[2].lower() not in scales:
        raise VirtError(EINVAL, f"{quoted(text)} is not {example}")
    return _whole(text, Fraction(_bounded(text, match[1])) * scales[match[2].lower()], unit)


def _bounded(text: str, number: str) -> str:
    """`number`, if it has few enough digits to be worth reading."""
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
    """`value` in the last unit of `scales` (smallest first) that divides it; zero in the first."""
    unit = [unit for unit, scale in scales.items() if value % scale == 0 and (value or scale == 1)][-1]
    return f"{value // scales[unit]}{unit}"
