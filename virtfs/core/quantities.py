"""Parse and format numbers. Parsing the text that a format function returns gives back the same number.

The parse functions raise VirtError: EINVAL for malformed text, ERANGE for a number out of range. The error message
quotes the text. Digits are ASCII digits. Leading zeros are refused, because other tools would read such a number as
octal. Only a mode, which is octal, may have leading zeros.
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
_SIZE = re.compile(r"(0|[1-9][0-9]*)([KMGkmg]?)")
_FACTOR = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MEASURE = re.compile(r"((?:0|[1-9][0-9]*)(?:\.[0-9]+)?)([A-Za-z]*|%)")
# Maximum number of digits, one more than 2**63 has. It is checked before int(), which raises ValueError for thousands
# of digits.
_DIGITS = 20


def parse_unit(text: str) -> Unit:
    """Parse the n of virt<n>: a number from 0 to 2147483639, in decimal without sign, blanks or leading zeros."""
    if not _NATURAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an interface number in plain decimal")
    return Unit(parse_int(text, 0, UNIT_MAX))


def parse_unit_name(text: str, *prefixes: str) -> Unit:
    """Return the n of a name such as "virt3", "tap3" or "3".

    prefixes: the prefixes that are allowed before the number; "" allows a number without a prefix.
    """
    prefix = next((prefix for prefix in ("virt", "tap") if text.startswith(prefix)), "")
    digits = text.removeprefix(prefix)
    if prefix not in prefixes or not _NATURAL.fullmatch(digits):
        if prefix == "tap" and _NATURAL.fullmatch(digits):
            raise VirtError(
                EINVAL, f"{quoted(text)} is not an interface name: write {quoted(f'virt{digits}')}, whose tap it is"
            )
        allowed = " or ".join(f"{prefix}N" for prefix in prefixes)
        raise VirtError(
            EINVAL, f"{quoted(text)} is not an interface name: it must be {allowed}, with N in plain decimal"
        )
    try:
        return parse_unit(digits)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is outside the range 0 to {UNIT_MAX}") from None


def parse_bridge_name(text: str) -> BridgeName:
    """Check a bridge name and return it unchanged: "bridge" and a number from 0 to 999999999, written like a unit."""
    digits = text.removeprefix("bridge")
    if digits == text or not _NATURAL.fullmatch(digits):
        raise VirtError(EINVAL, f"{quoted(text)} is not a bridge name: it must be bridgeN, with N in plain decimal")
    try:
        parse_int(digits, 0, BRIDGE_MAX)
    except VirtError:
        raise VirtError(ERANGE, f"{quoted(text)}: the number is outside the range 0 to {BRIDGE_MAX}") from None
    return BridgeName(text)


def parse_int(text: str, low: int, high: int) -> int:
    """Parse a plain decimal number from `low` to `high`. Both limits fit in 64 bits.

    A number with a minus sign is well-formed, so it fails with ERANGE rather than EINVAL if `low` is 0.
    """
    if not _INTEGER.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a number in plain decimal")
    if len(text) > _DIGITS or not low <= int(text) <= high:
        raise VirtError(ERANGE, f"{quoted(text)} is outside the range {low} to {high}")
    return int(text)


def parse_mode(text: str) -> int:
    """Parse permission bits in octal, 0 to 0777. Leading zeros are optional, as in chmod(1)."""
    if not _OCTAL.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not an octal mode such as 0660")
    # No check of the number of digits is needed: int() has no limit on digits if the base is a power of two.
    bits = int(text, 8)
    if bits > MODE_MAX:
        raise VirtError(ERANGE, f"{quoted(text)} is outside the range 0 to 0777")
    return bits


def format_mode(bits: int) -> str:
    """Format permission bits as four octal digits: "0660"."""
    return f"{bits:04o}"


_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Parse a number of bytes: a whole number, with an optional suffix.

    The suffixes K, M and G, in either case, multiply the number by 1024, 1024² and 1024³.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise VirtError(EINVAL, f"{quoted(text)} is not a size such as 4096, 64K, 4M or 1G")
    return _whole(text, Fraction(_bounded(text, match[1])) * _SIZES[match[2].upper()], "bytes")


def format_size(size: int) -> str:
    """Format a number of bytes in the largest unit that gives a whole number: "4M", "1500"."""
    return _format(size, _SIZES)


# tc(8), RATES: "bit" or no unit means bits a second, "bps" means bytes a second. The prefixes k, m, g and t are powers
# of 1000; ki, mi, gi and ti are powers of 1024.
_PREFIXES = {"": 1} | {
    prefix + binary: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for binary, base in (("", 1000), ("i", 1024))
}
_RATES = {"": 1} | {
    prefix + unit: scale * bits for prefix, scale in _PREFIXES.items() for unit, bits in (("bit", 1), ("bps", 8))
}


def parse_rate(text: str) -> int:
    """Parse a rate as tc does, and return bits a second.

    Examples: 10mbit, 1.5gbit, 64kbps (kilobytes a second), 1mibit. A number without a unit is in bits a second.
    """
    return _measure(text, _RATES, "bits a second", "a rate such as 10mbit")


def format_rate(rate: int) -> str:
    """Format bits a second in the largest SI unit that gives a whole number: "10mbit", "0bit"."""
    return _format(rate, {f"{prefix}bit": _RATES[f"{prefix}bit"] for prefix in ("", "k", "m", "g", "t")})


# tc(8), TIMES: a number without a unit is in microseconds. tc also accepts nanoseconds, which the manual omits.
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


def hint_of_unit(number: str, unit: str) -> str:
    """Return the end of an error message if two words are one quantity, such as 20 ms, 10 Mbit/s, 1 % or 4 M; else "".

    The message says how to write it.
    """
    known = unit.lower().removesuffix("/s")
    whole = _MEASURE.fullmatch(number + known)
    if whole is None or whole[1] != number or known not in {*_TIMES, *_RATES, "%", "k", "m", "g"}:
        return ""
    if known.endswith("bps"):  # which most people take for bits
        bits = quoted(f"{number}{known.removesuffix('bps')}bit")
        return f": write {bits} for bits a second, or {quoted(number + unit)} for bytes a second, without a blank"
    return f": write {quoted(number + (known if unit.endswith('/s') else unit))}, without a blank"


def parse_time(text: str) -> int:
    """Parse a time as tc does, and return nanoseconds.

    Examples: 20ms, 1.5s, 100us, 5ns. A number without a unit is in microseconds.
    """
    return _measure(text, _TIMES, "nanoseconds", "a time such as 20ms")


def format_time(nanoseconds: int) -> str:
    """Format nanoseconds in the largest unit that gives a whole number: "20ms", "0ns"."""
    return _format(nanoseconds, {unit: _TIMES[unit] for unit in ("ns", "us", "ms", "s")})


def parse_percent(text: str) -> float:
    """Parse a percentage from 0 to 100, which may have decimal places. "%" is optional, as in tc."""
    match = _MEASURE.fullmatch(text)
    if not match or match[2] not in ("", "%"):
        raise VirtError(EINVAL, f"{quoted(text)} is not a percentage, as in 0.5%")
    percent = float(match[1])
    if percent > 100:
        raise VirtError(ERANGE, f"{quoted(text)} is outside the range 0% to 100%")
    return percent


def format_percent(percent: float) -> str:
    """Format a percentage as the shortest text that is parsed into the same number: "0.5%", "1%"."""
    digits = f"{Decimal(repr(percent)):f}"  # never an exponent
    return f"{digits.removesuffix('.0')}%"


def parse_factor(text: str) -> float:
    """Parse a decimal factor such as 2 or 0.5: 0, or a number from 0.001 to 1000000."""
    if not _FACTOR.fullmatch(text):
        raise VirtError(EINVAL, f"{quoted(text)} is not a factor such as 0, 0.5 or 2")
    factor = float(_bounded(text, text))
    if factor and not 0.001 <= factor <= 1_000_000:
        raise VirtError(ERANGE, f"{quoted(text)} is out of range: it must be 0, or from 0.001 to 1000000")
    return factor


def format_factor(factor: float) -> str:
    """Format a factor: "2", "0.5"."""
    return repr(float(factor)).removesuffix(".0")


def _measure(text: str, scales: dict[str, int], unit: str, example: str) -> int:
    """Parse a decimal number with a unit; return the number in the smallest unit.

    scales: maps each unit, in lower case, to its size in the smallest unit. As in tc, the text may use either case.
    unit: plural of the smallest unit, for the error message. example: the end of the error message, for instance "a
    rate such as 10mbit".
    """
    match = _MEASURE.fullmatch(text)
    if not match or match[2].lower() not in scales:
        raise VirtError(EINVAL, f"{quoted(text)} is not {example}")
    return _whole(text, Fraction(_bounded(text, match[1])) * scales[match[2].lower()], unit)


def _bounded(text: str, number: str) -> str:
    """Check `number`, the numeric part of `text`, and return it unchanged.

    VirtError: `number` has more than _DIGITS digits before or after the decimal point.
    """
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
        raise VirtError(ERANGE, f"{quoted(text)} is outside the range 0 to {INT64_MAX} {unit}")
    return int(value)


def _format(value: int, scales: dict[str, int]) -> str:
    """Format `value` in the largest unit of `scales` that divides it. Zero is formatted in the smallest unit.

    scales: maps each unit, from the smallest to the largest, to its size in the smallest unit.
    """
    unit = [unit for unit, scale in scales.items() if value % scale == 0 and (value or scale == 1)][-1]
    return f"{value // scales[unit]}{unit}"
