"""The mount table of this process, read from /proc/self/mountinfo (proc(5)).

Paths from the table are compared, never opened: a server that opens a path in its own mount deadlocks, because its own
loop would have to answer the request.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

TABLE = "/proc/self/mountinfo"
VIRTFS = "fuse.virtfs"  # "fuse." and the subtype, see mount.fuse3(8)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: a line of the table.

    id: the mount's number, unique among current mounts; `mount --move` does not change it.
    parent: the id of the mount on which this one is mounted.
    device: st_dev as "major:minor".
    options: the super block's options, such as user_id=0.
    root: the path of the mounted directory in its file system; not "/" if a subdirectory is bind-mounted.
    """

    id: int
    parent: int
    device: str
    directory: str
    type: str
    source: str
    options: tuple[str, ...]
    root: str = "/"

    @property
    def virtfs(self) -> bool:
        """Whether this is a virtfs mount, whichever process serves it."""
        return self.type == VIRTFS

    def option(self, name: str) -> str | None:
        """Return the text after `name=` in the options, or None if there is no such option."""
        return next((o.partition("=")[2] for o in self.options if o.startswith(name + "=")), None)


def mounts() -> list[Mounted]:
    """Return all mounts that this process can reach."""
    with open(TABLE, "rb") as table:
        return parse(table.read())


def mounted_at(directory: str) -> Mounted | None:
    """Return the topmost mount at a directory, or None if nothing is mounted there.

    directory: a path in the form that resolve() returns.
    """
    here = [mount for mount in mounts() if mount.directory == directory]
    covered = {mount.parent for mount in here}
    return next((mount for mount in here if mount.id not in covered), None)


def mount_of(path: str) -> Mounted | None:
    """Return the mount that a path leads to, or None if the table has none. The path is not accessed.

    path: an absolute path; symbolic links are not followed.
    """
    around = [mount for mount in mounts() if f"{path}/".startswith(f"{mount.directory.rstrip('/')}/")]
    deepest = max(around, key=lambda mount: len(mount.directory), default=None)
    return deepest and mounted_at(deepest.directory)


def still_mounted(mount: Mounted, table: BinaryIO | None = None) -> bool:
    """Return whether the table still has this mount, even if it has been moved to another directory.

    table: the table as an open, unbuffered file. If None, this function opens the table, which needs a free descriptor.
    """
    if table is None:
        now = mounts()
    else:
        table.seek(0)
        now = parse(table.read())
    return any(other.id == mount.id and other.device == mount.device for other in now)


def resolve(directory: str) -> str:
    """Return the absolute path of a directory, without symbolic links, in the form that the table uses.

    If the directory is a mount point, it is not accessed, because the server of the mount may hang.
    """
    head, tail = os.path.split(directory.rstrip("/"))
    if tail in ("", ".", ".."):
        return os.path.realpath(directory)
    path = os.path.join(os.path.realpath(head or "."), tail)
    return path if mounted_at(path) else os.path.realpath(path)


def parse(table: bytes) -> list[Mounted]:
    """Parse text in the format of /proc/self/mountinfo (proc(5)), and return the mounts. Skip malformed lines.

    Any user can mount at a directory of any name. So one line that cannot be parsed must not hide the others.
    """
    found = []
    for line in table.split(b"\n"):
        with suppress(ValueError):
            found.append(_parse(line))
    return found


def _parse(line: bytes) -> Mounted:
    """Parse a line of the form "36 35 98:0 /root /directory options [more …] - type source options"."""
    before, _, after = line.partition(b" - ")
    # Only spaces separate fields. A name may contain other white space, and a source may be empty.
    number, parent, device, root, directory, *_ = before.split(b" ")
    kind, source, options = after.split(b" ")[:3]
    return Mounted(
        int(number),
        int(parent),
        device.decode("ascii"),
        _unescape(directory),
        _unescape(kind),
        _unescape(source),
        tuple(os.fsdecode(options).split(",")),
        _unescape(root),
    )


def _unescape(text: bytes) -> str:
    """Decode the octal escapes of the table (fs/proc_namespace.c mangle())."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) & 0xFF]), text))
