import errno
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.core import quantities
from virtfs.core.errors import VirtError
from virtfs.core.ids import UNIT_MAX

HUGE = "9" * 5000  # more digits than int() reads


def check_refusal(error: VirtError) -> None:
    """Assert what holds for every refusal: one of two errnos, and a printable line that begins with a quoted text."""
    assert error.errno in (errno.EINVAL, errno.ERANGE)
    assert str(error.strerror).startswith('"')
    assert str(error.strerror).isprintable()


def refused(parse: Callable[[str], object], text: str) -> int | None:
    with pytest.raises(VirtError) as caught:
        parse(text)
    check_refusal(caught.value)
    return caught.value.errno


@pytest.mark.parametrize(("text", "unit"), [("0", 0), ("3", 3), ("2147483639", UNIT_MAX)])
def test_unit(text: str, unit: int) -> None:
    assert quantities.parse_unit(text) == unit


@pytest.mark.parametrize("text", ["", "03", "00", "+3", "-3", " 3", "3 ", "3\n", "0x3", "3.0", "٣", "３", "³", "1_0"])
def test_unit_form(text: str) -> None:
    assert refused(quantities.parse_unit, text) == errno.EINVAL


@pytest.mark.parametrize("text", ["2147483640", "4294967296", HUGE])
def test_unit_range(text: str) -> None:
    assert refused(quantities.parse_unit, text) == errno.ERANGE


def test_unit_name() -> None:
    assert quantities.parse_unit_name("virt3", "virt") == 3
    assert quantities.parse_unit_name("tap3", "virt", "tap") == 3
    assert quantities.parse_unit_name("3", "", "virt") == 3


@pytest.mark.parametrize("text", ["tap3", "virt", "virt03", "virt-1", "virt3x", "virtvirt3", "Virt3", "eth0", "\n"])
def test_unit_name_form(text: str) -> None:
    assert refused(lambda text: quantities.parse_unit_name(text, "", "virt"), text) == errno.EINVAL


def test_unit_name_range() -> None:
    with pytest.raises(VirtError, match=r'"virt2147483640".* outside the range 0 to 2147483639') as caught:
        quantities.parse_unit_name("virt2147483640", "virt")
    assert caught.value.errno == errno.ERANGE


@pytest.mark.parametrize("text", ["", "x", "010", "+1", "1 ", "1.5", "--1", "-0", "0x10", "１"])
def test_integer_form(text: str) -> None:
    assert refused(lambda text: quantities.parse_int(text, 0, 100), text) == errno.EINVAL


@pytest.mark.parametrize("text", ["-1", "4", "101", HUGE, "-" + HUGE])
def test_integer_range(text: str) -> None:
    assert refused(lambda text: quantities.parse_int(text, 5, 100), text) == errno.ERANGE


@given(st.integers(-(2**63), 2**63))
def test_integer_survives(number: int) -> None:
    assert quantities.parse_int(str(number), -(2**63), 2**63) == number


@pytest.mark.parametrize(("text", "mode"), [("0", 0), ("660", 0o660), ("0660", 0o660), ("0777", 0o777)])
def test_mode(text: str, mode: int) -> None:
    assert quantities.parse_mode(text) == mode


def test_mode_refused() -> None:
    for text in ("", "8", "0o660", "rw", "-1", "u+r"):
        assert refused(quantities.parse_mode, text) == errno.EINVAL
    for text in ("1000", "04755", "7" * 5000):
        assert refused(quantities.parse_mode, text) == errno.ERANGE


@given(st.integers(0, 0o777))
def test_mode_survives(mode: int) -> None:
    assert quantities.parse_mode(quantities.format_mode(mode)) == mode


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("1K", 1024), ("4M", 4 << 20), ("4m", 4 << 20), ("2G", 2 << 30)],
)
def test_size(text: str, size: int) -> None:
    assert quantities.parse_size(text) == size


def test_size_refused() -> None:
    for text in ("", "M", "4T", "4MB", "4 M", "1.5M", "04M", "-1", "４M"):
        assert refused(quantities.parse_size, text) == errno.EINVAL
    for text in (f"{1 << 33}G", HUGE, HUGE + "G"):
        assert refused(quantities.parse_size, text) == errno.ERANGE


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("9600", 9600),
        ("1bit", 1),
        ("10mbit", 10_000_000),
        ("10Mbit", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("0.5kbit", 500),
        ("1mibit", 1 << 20),
        ("64kbps", 512_000),
        ("1kibps", 8192),
        ("1tbit", 10**12),
    ],
)
def test_rate(text: str, rate: int) -> None:
    assert quantities.parse_rate(text) == rate


def test_rate_refused() -> None:
    for text in (
        "",
        "mbit",
        "10 mbit",
        "10mb",
        "10%",
        "-1mbit",
        "1e6",
        ".5mbit",
        "5.mbit",
        "010",
        "0.5bit",
        "nan",
    ):
        assert refused(quantities.parse_rate, text) == errno.EINVAL
    assert refused(quantities.parse_rate, "0." + "0" * 5000 + "1") == errno.EINVAL
    for text in (HUGE, "10000000000tbit"):
        assert refused(quantities.parse_rate, text) == errno.ERANGE


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("20ms", 20_000_000),
        ("20msecs", 20_000_000),
        ("1.5s", 1_500_000_000),
        ("2sec", 2_000_000_000),
        ("100us", 100_000),
        ("100", 100_000),
        ("0.5us", 500),
        ("7ns", 7),
        ("0", 0),
    ],
)
def test_time(text: str, nanoseconds: int) -> None:
    assert quantities.parse_time(text) == nanoseconds


def test_time_refused() -> None:
    for text in ("", "ms", "20 ms", "20m", "1h", "-1ms", "0.5ns", "inf", "20%"):
        assert refused(quantities.parse_time, text) == errno.EINVAL
    for text in (HUGE + "s", "9223372037s"):
        assert refused(quantities.parse_time, text) == errno.ERANGE


@pytest.mark.parametrize(("text", "percent"), [("0", 0), ("1%", 1), ("0.5%", 0.5), ("100%", 100), ("12.5", 12.5)])
def test_percent(text: str, percent: float) -> None:
    assert quantities.parse_percent(text) == percent


def test_percent_refused() -> None:
    for text in ("", "%", "1 %", "1%%", "-1%", "1e1%", "1ms", "nan%", "01%"):
        assert refused(quantities.parse_percent, text) == errno.EINVAL
    for text in ("100.1%", "101", HUGE):
        assert refused(quantities.parse_percent, text) == errno.ERANGE


def test_formats_are_short() -> None:
    assert [quantities.format_size(size) for size in (0, 1500, 64 << 10, 4 << 20, 3 << 30)] == [
        "0", "1500", "64K", "4M", "3G",
    ]  # fmt: skip
    assert [quantities.format_rate(rate) for rate in (0, 1, 10_000_000, 1_500_000_000)] == [
        "0bit", "1bit", "10mbit", "1500mbit",
    ]  # fmt: skip
    assert [quantities.format_time(time) for time in (0, 7, 20_000_000, 1_500_000)] == [
        "0ns",
        "7ns",
        "20ms",
        "1500us",
    ]
    assert [quantities.format_percent(percent) for percent in (0.0, 1.0, 0.5, 1e-5)] == [
        "0%",
        "1%",
        "0.5%",
        "0.00001%",
    ]


@given(st.integers(0, 2**63 - 1))
def test_measures_survive(number: int) -> None:
    assert quantities.parse_size(quantities.format_size(number)) == number
    assert quantities.parse_rate(quantities.format_rate(number)) == number
    assert quantities.parse_time(quantities.format_time(number)) == number


@given(st.floats(0, 100, allow_nan=False))
def test_percent_survives(percent: float) -> None:
    assert quantities.parse_percent(quantities.format_percent(abs(percent))) == percent
    assert math.isfinite(percent)


PARSERS: list[Callable[[str], object]] = [
    quantities.parse_unit,
    quantities.parse_mode,
    quantities.parse_size,
    quantities.parse_rate,
    quantities.parse_time,
    quantities.parse_percent,
    lambda text: quantities.parse_unit_name(text, "", "virt"),
    lambda text: quantities.parse_int(text, 0, 10),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text() | st.text("0123456789.-+%kKmMgGsunbitp"))
def test_any_text_is_a_value_or_refused(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except VirtError as error:
        check_refusal(error)
