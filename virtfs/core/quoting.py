r"""Show text that comes from users, from other programs or from the kernel.

The name of a process, interface or network namespace may contain any byte except NUL and a few others. A newline in
such a name could forge a line of a report. An escape sequence or a bidirectional override (Unicode UAX #9) could change
what a terminal shows. So the only unprintable characters (str.isprintable) in the output of virtfs are the newlines and
tabs of its own layout. Any other unprintable character is shown as an escape:

    \n \t \r            newline, tab, carriage return
    \x1b                any other ASCII control character
    \xff                a byte that is not UTF-8 (decoded with "surrogateescape", PEP 383)
    \u202e \U000e0001   any other unprintable character

The functions differ in where the text appears:

    quoted     a text inside a sentence
    word       a name that is one word of a line, or one value of a file
    one_line   a whole sentence or line of a log
    encode     a whole text file
"""

import re

_SHOWN = 64  # characters; longer quotations would make last_error hard to read
_ASCII_TEXT = bytes((*b"\t\n", *range(0x20, 0x7F)))
_ODD = re.compile(r"[^\t\n\x20-\x7e]")


def quoted(text: str) -> str:
    r"""Return `text` in double quotes.

    Double quotes, backslashes and unprintable characters are escaped. "…" replaces everything after the first 64
    characters.
    """
    rest = "…" if len(text) > _SHOWN else ""
    return '"' + "".join(f"\\{char}" if char in '"\\' else _visible(char) for char in text[:_SHOWN]) + rest + '"'


def word(name: str) -> str:
    r"""Return a name as one word: unprintable characters and blanks are escaped.

    A blank becomes \x20. If anything is escaped, each backslash is doubled, so that two names never look the same.
    """
    if name.isprintable() and " " not in name:
        return name
    return "".join({" ": "\\x20", "\\": "\\\\"}.get(char) or _visible(char) for char in name)


def one_line(text: str) -> str:
    """Return a sentence with its unprintable characters escaped. Text that is already escaped is unchanged."""
    return text if text.isprintable() else "".join(map(_visible, text))


def encode(text: str) -> bytes:
    """Return the contents of a text file. Newlines and tabs stay; other unprintable characters are escaped."""
    data = text.encode("utf-8", "surrogatepass")
    # bytes.translate() needs 1 ms for a text of 1 MiB, and the regular expression 20 ms.
    odd = data.translate(None, _ASCII_TEXT)
    if odd.decode("utf-8", "surrogatepass").isprintable():
        return data
    return _ODD.sub(lambda found: _visible(found[0]), text).encode()


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    if is_stray_byte(char):
        return f"\\x{ord(char) - 0xDC00:02x}"
    if "\x80" <= char <= "\xff":
        return f"\\u{ord(char):04x}"  # not \xNN, which stands for a byte
    return char.encode("unicode_escape").decode("ascii")


def is_stray_byte(char: str) -> bool:
    """Return whether this character is a surrogate escape (PEP 383), which stands for a byte that is not UTF-8."""
    return 0xDC80 <= ord(char) <= 0xDCFF
