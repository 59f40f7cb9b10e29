import errno
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtfs.core.errors import VirtError
from virtfs.core.grammar import parse
from virtfs.core.line_words import LINE_MAX
from virtfs.core.script import BLANKS, WHOLE_BELOW, WRITE_MAX, Line, Script

LONG_COMMENT = b"#" * WHOLE_BELOW + b"\n"


def texts(lines: Iterable[Line]) -> list[str]:
    return [line.text for line in lines]


def with_rest(lines: list[str], script: Script) -> list[str]:
    """Return the lines, including a last line that a long write left without its newline."""
    return [*lines, script.rest()] if script.rest() else lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"create 3\n", ["create 3"]),
        (b"create 3", ["create 3"]),
        (b"create 3\nvirt3 up", ["create 3", "virt3 up"]),
        (b"create 3\n\nvirt3 up\n", ["create 3", "virt3 up"]),
        (b"\n", []),
        (b"", []),
        ("description Ärger\n".encode(), ["description Ärger"]),
    ],
)
def test_short_write_is_whole(data: bytes, lines: list[str]) -> None:
    script = Script()
    assert texts(script.feed(data)) == lines
    assert script.rest() == ""


def test_lines_know_their_number() -> None:
    lines = list(Script().feed(b"one\ntwo\nthree"))
    assert lines == [Line("one", 1, 3), Line("two", 2, 3), Line("three", 3, 3)]


def test_blank_lines_count_but_are_passed_over() -> None:
    script = b" \n\n \t\n up\n\r\n\n  down\n\n"
    assert list(Script().feed(script)) == [Line(" up", 4, 8), Line("  down", 7, 8)]


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\t" * 100 + b"\n"])
def test_many_blank_lines_are_passed_over_in_steps(blank: bytes) -> None:
    """The caller lets other tasks run after each step."""
    before = WRITE_MAX // len(blank) - 3
    *passed, last = Script().feed(blank * before + b"up\n")
    assert last == Line("up", before + 1, before + 1)
    assert {line.text for line in passed} == {""}
    ends = [1, *(line.number for line in passed), before + 1]
    assert max(one - other for one, other in pairwise(reversed(ends))) * len(blank) <= BLANKS


@given(st.lists(st.sampled_from([b"", b" ", b"\t\v", b"up", b" up ", b"\x1f"]), max_size=40), st.booleans())
def test_numbers_are_those_of_an_editor(lines: list[bytes], ends: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    numbered = list(Script().feed(data))
    assert {line.number: line.text for line in numbered if line.text.strip(" \t\v")} == {
        number: text.decode() for number, text in enumerate(data.split(b"\n"), start=1) if text.strip(b" \t\v")
    }
    assert all(line.total == data.count(b"\n") + (not data.endswith(b"\n")) for line in numbered)


@given(cut=st.integers(0, 12), kept=st.booleans(), ends=st.booleans())
def test_an_interrupted_write_goes_on_where_it_stopped(cut: int, kept: bool, ends: bool) -> None:
    """The program writes what is left again, which may be short, and no line is lost, run twice or cut."""
    script = Script()
    before = b"# " + b"x" * WHOLE_BELOW if kept else b""
    script.feed(before) if kept else None
    data = b"".join(b"up %d\n\n" % number for number in range(9)) + b"#" * WHOLE_BELOW + b"\nlast" + b"\n" * ends
    ran = []
    lines = script.feed(data)
    for _ in range(cut):
        if (line := next(lines, None)) is None:
            break
        ran.append(line.text)
    else:
        next(lines, None)  # the interrupted one, which has not run
    number, taken = script.line, script.give_back()
    assert 0 <= taken <= len(data)
    assert taken or len(ran) == 0
    if taken < len(data):
        ran += [line.text for line in script.feed(data[taken:])]
    whole = Script()
    assert ran == [line.text for line in whole.feed(before + data)]
    assert script.rest() == whole.rest()
    assert number >= 1


def test_error_names_the_line_among_several() -> None:
    error = VirtError(errno.ENXIO, "no interface virt3")
    assert Line("virt3 up", 3, 4).locate(error).strerror == "line 3: no interface virt3"
    assert Line("virt3 up", 3, 4).locate(error).errno == errno.ENXIO
    assert Line("virt3 up", 1, 1).locate(error).strerror == "no interface virt3"


def test_long_write_goes_on_in_the_next() -> None:
    script = Script()
    assert texts(script.feed(LONG_COMMENT + b"create 3\ncre")) == [LONG_COMMENT[:-1].decode(), "create 3"]
    assert script.rest() == "cre"
    assert list(script.feed(b"ate 4")) == [Line("create 4", 1, 1)]
    assert script.rest() == ""


def test_limit_between_short_and_long() -> None:
    script = Script()
    assert texts(script.feed(b"#" * 4095)) == ["#" * 4095]
    assert texts(script.feed(b"#" * 4096)) == []
    assert script.rest() == "#" * 4096


def test_character_cut_in_two() -> None:
    script = Script()
    data = LONG_COMMENT + "virt3 description ü".encode()
    script.feed(data[:-1])
    assert texts(script.feed(data[-1:])) == ["virt3 description ü"]


def test_forgotten_after_a_failure() -> None:
    script = Script()
    script.feed(LONG_COMMENT + b"destroy ")
    script.forget()
    assert script.rest() == ""
    assert texts(script.feed(b"3\n")) == ["3"]


def test_write_over_1_mib() -> None:
    script = Script()
    script.feed(LONG_COMMENT + b"destroy ")
    with pytest.raises(VirtError) as caught:
        script.feed(b"\n" * (WRITE_MAX + 1))
    assert caught.value.errno == errno.E2BIG
    assert script.rest() == ""
    assert set(texts(script.feed(b"\n" * WRITE_MAX))) == {""}
    assert set(texts(script.feed(b"\n" * (WRITE_MAX - 2) + b"up"))) == {""}
    assert list(script.feed(b"\n")) == [Line("up", 1, 1)]


def test_line_without_end() -> None:
    script = Script()
    script.feed(b"#" * LINE_MAX)
    assert len(script.rest()) == LINE_MAX
    with pytest.raises(VirtError) as caught:
        script.feed(b"#" * WHOLE_BELOW)
    assert caught.value.errno == errno.E2BIG
    assert script.rest() == ""


def test_bytes_that_are_not_utf8_fail_when_their_turn_comes() -> None:
    first, second = Script().feed(b"create 3\ncreate \xff4\n")
    assert parse(first.text) is not None
    with pytest.raises(VirtError, match=r'"\\xff" is not UTF-8, in "create \\xff4"') as caught:
        parse(second.text)
    assert caught.value.errno == errno.EINVAL


@st.composite
def cut_scripts(draw: st.DrawFn) -> list[bytes]:
    """Draw a script of any bytes, cut anywhere into writes. All of them but the last are long."""
    seeds = draw(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
    data = b"\n".join(seeds * draw(st.integers(1, 400)))
    writes = []
    while len(data) > WHOLE_BELOW:
        size = draw(st.integers(WHOLE_BELOW, 3 * WHOLE_BELOW))
        writes.append(data[:size])
        data = data[size:]
    return [*writes, data]


@settings(deadline=None)
@given(cut_scripts())
def test_cuts_change_nothing(writes: list[bytes]) -> None:
    script = Script()
    pieces = [text for write in writes for text in texts(script.feed(write))]
    whole = Script()
    lines = texts(whole.feed(b"".join(writes)))
    assert with_rest(pieces, script) == with_rest(lines, whole)


@given(st.lists(st.binary(max_size=5000)))
def test_any_bytes_become_lines_of_text(writes: list[bytes]) -> None:
    script = Script()
    for write in writes:
        for line in script.feed(write):
            assert "\n" not in line.text


def test_the_rest_of_a_long_write_stays_long() -> None:
    """A program writes the rest of a write that was cut short. If that is cut short too, its rest is part of it."""
    data = LONG_COMMENT + b"one\n" + b"two\n" * 5 + b"virt3 u"
    script, rest = Script(), data
    lines: list[str] = []
    while rest:
        pieces = script.feed(rest)
        if len(lines) < 4:
            lines += [next(pieces).text]
            next(pieces)  # so that the first one counts as run
            rest = rest[script.give_back() :]
        else:
            lines += texts(pieces)
            rest = b""
    assert lines[1:] == ["one"] + ["two"] * 5
    assert script.rest() == "virt3 u"
