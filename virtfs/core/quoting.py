"""Quote text from a user. The result is a single line, without characters that a terminal would interpret."""

_SHOWN = 64  # characters; longer quotations would make last_error hard to read


def quoted(text: str) -> str:
    r"""Return `text` in double quotes.

    Double quotes, backslashes and unprintable characters are escaped as in Python. A byte that was not UTF-8 (decoded
    with "surrogateescape") becomes \xNN. "…" replaces everything after the first 64 characters.
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


def one_line(text: str) -> str:
    """Return a sentence with its unprintable characters escaped. Text that is already escaped is unchanged."""
    return text if text.isprintable() else "".join(char if char in '"\\' else _escaped(char) for char in text)


def is_stray_byte(char: str) -> bool:
    """Return whether this character is a surrogate escape (PEP 383), which stands for a byte that is not UTF-8."""
    return 0xDC80 <= ord(char) <= 0xDCFF
