"""What stands after `-o`: virtfs' own options, those of the kernel's mount, and those that are for other readers."""

import errno
import os
import re
from dataclasses import dataclass, field, replace
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.core.quantities import format_size, parse_size

# Words for mount(8), systemd or the boot, and words that say what holds anyway: fusermount3 mounts nosuid and nodev,
# virtfs with default_permissions, and FUSE has mounted over what is there since fuse 3.0.
_OTHERS = re.compile(
    "defaults|(no)?auto|(no)?user(=.*)?|(no)?users|(no)?owner|(no)?group|nofail|_netdev|(no)?suid|(no)?dev"
    "|(no)?(dir|rel|strict)atime|(no)?lazytime|(no)?iversion|(no)?mand|silent|loud|default_permissions|nonempty|subtype=virtfs"
    "|(x-|X-|comment=|uhelper=|helper=).*"
)
# Flags of the mount: each word with what it sets.
FLAGS: Final = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "noatime": ("noatime", True),
    "atime": ("noatime", False),
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
    "allow_other": ("allow_other", True),
}
_REFUSED: Final = (
    ("uid|gid", 'each interface has an owner: "virtN owner USER", "virtN group GROUP" in ctl, or chown'),
    ("umask|fmask|dmask|mode", 'each interface has a mode: "virtN mode OCTAL" in ctl, or chmod'),
    ("(fs|def|root)?context|seclabel", "fusermount3 sets no SELinux label: the policy has one for FUSE (fusefs_t)"),
    ("subtype", "the type is fuse.virtfs: by it virtfs and umount -t know the mount"),
    ("allow_root", "root's mount is everybody's, and a user's his alone, or everybody's with allow_other"),
    ("auto_unmount", "leave it out: a mount ends with its server, and that of a killed one at the next mount there"),
    ("max_read|max_write|blksize|large_read", "one read is one frame, whatever its length"),
    ("fd|rootmode|user_id|group_id|blkdev", "fusermount3 agrees on it with the kernel"),
    ("bind|rbind|move|r?(shared|slave|private|unbindable)", "say it to mount(8) once virtfs is mounted"),
    ("loop|offset|sizelimit", "virtfs is in no image and on no device"),
    ("nosymfollow", "tapN and rx are symbolic links"),
)
_LIMITS = {"max_virts": "virts", "max_queue": "queue", "max_backlog": "backlog"}
_SIZES = {"max_history": "history", "capture": "capture"}  # in bytes, or with K, M, G
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class MountOptions:
    """limits: see there. log, state: an absolute path, or None. debug: log everything.

    source: what the table of mounts names it. flags: those that were said, by the names in FLAGS, and whether they are
    to hold. remount: change the mount that is there. given: the names of virtfs' own options that were said.
    """

    limits: Limits = field(default_factory=Limits)
    log: str | None = None
    state: str | None = None
    debug: bool = False
    source: str | None = None
    flags: tuple[tuple[str, bool], ...] = ()
    remount: bool = False
    given: frozenset[str] = frozenset()

    def own(self) -> dict[str, str | None]:
        """Virtfs' own options as words, by name; None for one that is off."""
        limits = {option: f"{option}={getattr(self.limits, name)}" for option, name in _LIMITS.items()}
        sizes = {option: f"{option}={format_size(getattr(self.limits, name))}" for option, name in _SIZES.items()}
        files = {name: f"{name}={path}" if path else None for name, path in (("state", self.state), ("log", self.log))}
        return limits | sizes | files | {"debug": "debug" if self.debug else None}

    def text(self) -> str:
        """Virtfs' own options that are not as they are by default, as `parse` takes them."""
        usual = MountOptions().own()
        return ",".join(word for name, word in self.own().items() if word is not None and word != usual[name])


def parse(text: str, sloppy: bool = False) -> MountOptions:
    """Read a comma-separated list; of words that contradict each other the last one holds.

    sloppy: pass over what is unknown or refused, mount(8)'s -s.
    VirtError EINVAL, ERANGE, quoting the option, with what to say instead.
    """
    options = MountOptions()
    flags: dict[str, bool] = {}
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if name in _LIMITS:
            limit = {_LIMITS[name]: _number(word, value)}
            options = replace(options, limits=replace(options.limits, **limit))
        elif name in _SIZES:
            size = {_SIZES[name]: parse_size(value)}
            options = replace(options, limits=replace(options.limits, **size))
        elif name in ("log", "state"):
            if not value:
                raise VirtError(errno.EINVAL, f'"{word}" wants the name of a file')
            path = os.path.abspath(value)
            options = replace(options, log=path) if name == "log" else replace(options, state=path)
        elif word == "debug":
            options = replace(options, debug=True)
        elif word == "remount":
            options = replace(options, remount=True)
        elif name == "fsname" and value:
            options = replace(options, source=value)
        elif word in FLAGS:
            flag, on = FLAGS[word]
            flags[flag] = on
        elif not (sloppy or _OTHERS.fullmatch(word)):
            raise VirtError(errno.EINVAL, _why_not(word, name))
        options = replace(options, given=options.given | {name} & MountOptions().own().keys())
    return replace(options, flags=tuple(flags.items()))


def _why_not(word: str, name: str) -> str:
    sentence = next((sentence for names, sentence in _REFUSED if re.fullmatch(names, name)), None)
    return f'mount option "{word}": {sentence}' if sentence else f'unknown mount option "{word}"'


def _number(word: str, value: str) -> int:
    if not re.fullmatch("[0-9]+", value):
        raise VirtError(errno.EINVAL, f'"{word}" wants a number')
    if not 1 <= int(value[:20]) <= _MOST:
        raise VirtError(errno.ERANGE, f'"{word}" is out of range, 1 to {_MOST}')
    return int(value)
