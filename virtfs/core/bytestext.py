"""Names as bytes and as text, whatever the locale.

The kernel's names are bytes. Inside virtfs a name is text, decoded as UTF-8. A byte that is not UTF-8 becomes a
surrogate ("surrogateescape", PEP 383), so encoding the text gives the same bytes again. os.fsencode() and
os.fsdecode() depend on the locale; they are for paths only.
"""


def to_text(name: bytes) -> str:
    """Decode a name."""
    return name.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """Encode a name. A surrogate that does not stand for a byte becomes "?"."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "replace")
