"""Text from outside is shown without a character that a terminal or a reader of lines would interpret."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.core.quoting import encode, one_line, quoted, word

texts = st.text(st.characters(), max_size=100) | st.binary(max_size=100).map(to_text)


@given(texts)
@example("\x85\u2028\u202e\U000e0001\udcff\x1b[31m\x7f\xa0\u3000")
@example("\ud800")
def test_what_is_shown_is_printable(text: str) -> None:
    assert quoted(text).isprintable()
    assert one_line(text).isprintable()
    assert word(text).isprintable()
    assert " " not in word(text)
    assert encode(text).decode().replace("\n", "").replace("\t", "").isprintable()
    assert VirtError(1, text).strerror == one_line(text)


@given(texts)
def test_escaping_twice_is_escaping_once(text: str) -> None:
    assert one_line(one_line(text)) == one_line(text)
    assert encode(encode(text).decode()) == encode(text)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_two_names_look_different_if_one_is_escaped(one: bytes, other: bytes) -> None:
    if one != other and "\\" in (word(to_text(one)) + word(to_text(other))):
        assert word(to_text(one)) != word(to_text(other)) or to_text(one).isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tap3", "tap3"),
        ("", ""),
        ("→ü", "→ü"),
        ("a\\b", "a\\b"),
        ("a\\ b", r"a\\\x20b"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31m\x7f", r"\x1b[31m\x7f"),
        ("\udcff", r"\xff"),
        ("\xff\xa0", r"ÿ\u00a0"),
        ("\x9b", r"\u009b"),
        ("a\u202eb", r"a\u202eb"),
    ],
)
def test_word(name: str, shown: str) -> None:
    assert word(name) == shown


def test_a_long_text_file_keeps_its_layout() -> None:
    assert encode("a\tb\n\x1b→\n") == rb"a	b" + b"\n" + r"\x1b→".encode() + b"\n"


@given(st.binary())
def test_names_as_text_are_the_same_bytes_again(name: bytes) -> None:
    assert to_bytes(to_text(name)) == name
