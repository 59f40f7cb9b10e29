"""Read and write small text files, such as those of proc(5) and /etc, whatever the locale.

All text files of virtfs are UTF-8. A byte that is not UTF-8 survives as a surrogate (PEP 383).
"""

from pathlib import Path

from virtfs.core.bytestext import to_bytes, to_text


def read_text(path: str | Path) -> str:
    """Return the contents of a file. OSError: errors of open(2) and read(2)."""
    return to_text(Path(path).read_bytes())


def write_text(path: str | Path, text: str) -> None:
    """Replace the contents of a file with one write(2). OSError: errors of open(2) and write(2)."""
    with open(path, "wb", buffering=0) as file:
        file.write(to_bytes(text))
