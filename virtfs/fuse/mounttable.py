"""The kernel's table of mounts, read from /proc/self/mountinfo (proc(5)).

A path of the table is only compared, never opened: whoever serves a mount must not touch it, as his own loop
would have to answer.
"""

import os
import re
from dataclasses import dataclass
from typing import BinaryIO

TABLE = "/proc/self/mountinfo"
VIRTFS = "fuse.virtfs"  # a FUSE mount's type is "fuse." and its subtype, mount.fuse3(8)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the table.

    id: unique among the mounts of now, kept by `mount --move`. parent: the id of what it is mounted on.
    device: st_dev as "major:minor". options: the file system's own, such as user_id=0.
    """

    id: int
    parent: int
    device: str
    directory: str
    type: str
    source: str
    options: tuple[str, ...]

    @property
    def virtfs(self) -> bool:
        """One of ours, whoever serves it."""
        return self.type == VIRTFS

    def option(self, name: str) -> str | None:
        """The text after `name=` among the options; None if it is not there."""
        return next((o.partition("=")[2] for o in self.options if o.startswith(name + "=")), None)


def mounts() -> list[Mounted]:
    """All mounts that this process can reach."""
    with open(TABLE, "rb") as table:
        return [_parse(line) for line in table]


def mounted_at(directory: str) -> Mounted | None:
    """What is mounted at a resolved directory: the topmost, if there are several on each other."""
    here = [mount for mount in mounts() if mount.directory == directory]
    covered = {mount.parent for mount in here}
    return next((mount for mount in here if mount.id not in covered), None)


def still_there(mount: Mounted, table: BinaryIO | None = None) -> bool:
    """Whether the table has this very mount; it may have been moved.

    table: the table, open without a buffer, to be read again: that takes no other descriptor.
    """
    if table is None:
        now = mounts()
    else:
        table.seek(0)
        now = [_parse(line) for line in table.read().splitlines()]
    return any(other.id == mount.id and other.device == mount.device for other in now)


def resolve(directory: str) -> str:
    """The path under which the table names a directory: absolute, without symbolic links.

    Does not touch the directory itself if it is a mount point: a server that hangs there would take us along.
    """
    head, tail = os.path.split(directory.rstrip("/"))
    if tail in ("", ".", ".."):
        return os.path.realpath(directory)
    path = os.path.join(os.path.realpath(head or "."), tail)
    return path if mounted_at(path) else os.path.realpath(path)


def _parse(line: bytes) -> Mounted:
    """One line, proc(5): 36 35 98:0 /root /directory options [more …] - type source options."""
    before, _, after = line.partition(b" - ")
    number, parent, device, _, directory, *_ = before.split()
    kind, source, options = after.split()[:3]
    return Mounted(
        int(number),
        int(parent),
        device.decode("ascii"),
        _unescape(directory),
        _unescape(kind),
        _unescape(source),
        tuple(os.fsdecode(options).split(",")),
    )


def _unescape(text: bytes) -> str:
    """Blanks, newlines and backslashes come as octal, fs/proc_namespace.c mangle()."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text))
