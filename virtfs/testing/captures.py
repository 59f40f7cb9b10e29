"""Write the last frames of each interface to files, after a test has failed."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from virtfs.client.virt import Virt
from virtfs.core.pcapng import PACKET, is_mark

_LONGEST: Final = 180  # bytes of a name, before the hash and "-virtN.NOTE.pcapng"; Linux allows 255 in all
_NOTE: Final = 40  # bytes of NOTE
_HASHED: Final = 8  # hexadecimal digits of a hash
# The node IDs that can be derived from their names: "-" stands only for "/" and "::", and only the path has dots.
_REVERSIBLE: Final = re.compile(r"\w[\w.]*(/\w[\w.]*)*\.\w+(::\w+)+")


class Recording(NamedTuple):
    """The last frames of an interface. note: its description, such as the name of a host. data: a pcapng file."""

    name: str
    note: str
    data: bytes


class Saved(NamedTuple):
    """What was done with a recording. path: the file, None if there were no frames. line: the line in the report."""

    path: Path | None
    line: str


def record(virts: Iterable[Virt]) -> list[Recording]:
    """Return the history of each interface that keeps one. OSError: the mount has ended."""
    recordings = []
    for virt in virts:
        with suppress(FileNotFoundError):  # a program that the test started has destroyed the interface
            if virt.history_size:
                recordings.append(Recording(virt.name, virt.description, virt.history()))
    return recordings


def save(recordings: Iterable[Recording], test: str, directory: Path) -> list[Saved]:
    """Write each recording, unless it has no frames, to `<test>-virtN.<note>.pcapng`. Return what was done with each.

    test: the node ID of the test, such as "test_link.py::test_ping[20ms]". directory: made if it does not exist.
    OSError: a file cannot be written.
    """
    saved = []
    for name, note, data in recordings:
        title = f"{name} ({note})" if note else name
        if count := _frames(data):
            since = data.rfind(mark_of(test).encode())  # -1 if the interface was made by the test
            _make(directory)
            path = directory / f"{file_name(test)}-{name}{_suffix(note)}.pcapng"
            path.write_bytes(data)
            frames = "1 frame" if count == 1 else f"{count} frames"
            if since >= 0:
                frames += f", {_frames(data, since)} of them since this test began"
            saved.append(Saved(path, f"{title}: {path}: {frames}"))
        else:
            saved.append(Saved(None, f"{title}: no frames"))
    return saved


def mark_of(test: str) -> str:
    """Return the text of the mark at the beginning of a test. test: its node ID."""
    return f"begins: {file_name(test)}"


def remove(test: str, directory: Path, before: float) -> None:
    """Remove the files that save() wrote for a test before a time, in seconds since 1970.

    OSError: a file cannot be removed, or the directory cannot be read.
    """
    ours = re.compile(re.escape(file_name(test)) + r"-virt\d+(\.\w+)?\.pcapng")
    with suppress(FileNotFoundError):
        for path in directory.iterdir():
            if ours.fullmatch(path.name) and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


def file_name(test: str) -> str:
    """Return a test's node ID without characters that are special to a shell or file system, for use in file names.

    No two tests have the same name. It ends with a hash of the node ID if others could become the same text.

    >>> file_name("tests/test_link.py::test_ping")
    'tests-test_link.py-test_ping'
    >>> file_name("tests/test_link.py::test_ping[20ms, lossy]")
    'tests-test_link.py-test_ping-20ms-lossy.70299492'
    """
    plain = re.sub(r"[^\w.]+", "-", test).strip("-.").encode()
    if len(plain) <= _LONGEST and _REVERSIBLE.fullmatch(test):
        return plain.decode()
    digits = sha256(test.encode(errors="surrogateescape")).hexdigest()
    return f"{plain[-_LONGEST:].decode(errors='ignore')}.{digits[:_HASHED]}"


def _suffix(note: str) -> str:
    """Return the part of a file's name that comes from a description: ".a", or "". It has no dot or hyphen inside."""
    word = re.sub(r"\W+", "_", note).strip("_").encode()[:_NOTE].decode(errors="ignore")
    return f".{word}" if word else ""


def _make(directory: Path) -> None:
    """Make the directory, with a .gitignore that keeps it out of a repository."""
    if not directory.exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".gitignore").write_text("*\n")


def _frames(recording: bytes, since: int = 0) -> int:
    """Return the number of frames in a pcapng file that virtfs has written, without marks.

    since: the offset after which blocks count.
    """
    return sum(kind == PACKET and at >= since and not is_mark(recording, at) for at, kind in _blocks(recording))


def _blocks(recording: bytes) -> Iterator[tuple[int, int]]:
    """Yield the offset and the type of each block. A block begins with its type and its length, 4 bytes each."""
    at = 0
    while at + 8 <= len(recording):
        yield at, int.from_bytes(recording[at : at + 4], "little")
        at += max(12, int.from_bytes(recording[at + 4 : at + 8], "little"))
