"""How a user's text is shown back to him: on one line, with nothing that a terminal would obey."""

_SHOWN = 64  # characters; last_error is to be read by a person


def quoted(text: str) -> str:
    r"""`text` in double quotes.

    What is not printable, the quote and the backslash are escaped as in Python; a byte that was not UTF-8
    (decoded with "surrogateescape") becomes \xNN. After 64 characters "…" stands for the rest.
    """
    rest = "…" if len(text) > _SHOWN else ""
    return '"' + "".join(map(_escaped, text[:_SHOWN])) + rest + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    if is_stray_byte(char):
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def is_stray_byte(char: str) -> bool:
    """Whether "surrogateescape" (PEP 383) made this character of a byte that is not UTF-8."""
    return 0xDC80 <= ord(char) <= 0xDCFF
