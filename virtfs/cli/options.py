"""Mount options, as given after `-o`: options of virtfs, flags of mount(2), and options for other programs."""

import errno
import os
import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.limits import Limits
from virtfs.core.quantities import format_size, parse_size

# Options that are accepted and ignored. Some are for mount(8), systemd or boot scripts. The others have no effect:
# fusermount3 always sets nosuid and nodev, virtfs always sets default_permissions, libfuse 3 always permits nonempty.
_IGNORED = re.compile(
    "defaults|(no)?auto|(no)?user(=.*)?|(no)?users|(no)?owner|(no)?group|nofail|_netdev|(no)?suid|(no)?dev"
    "|(no)?(dir|rel|strict)atime|(no)?lazytime|(no)?iversion|(no)?mand|silent|loud|default_permissions|nonempty|subtype=virtfs"
    "|(x-|X-|comment=|uhelper=|helper=).*"
)
# For each option that sets a flag of the mount: the name of the flag, and its value.
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
# Refused options: a pattern that matches their names, and what to do instead.
_REFUSED: Final = (
    ("uid|gid", 'set the owner per interface: "virtN owner USER" and "virtN group GROUP" in ctl, or chown'),
    ("umask|fmask|dmask|mode", 'set the mode per interface: "virtN mode OCTAL" in ctl, or chmod'),
    ("(fs|def|root)?context|seclabel", "fusermount3 cannot set SELinux labels: the policy labels FUSE as fusefs_t"),
    ("subtype", "leave it out: virtfs and umount -t recognize the mount by its type, fuse.virtfs"),
    ("allow_root", "use allow_other, which admits all users, including root; root's mounts always have it"),
    ("auto_unmount", "leave it out: the server unmounts when it ends, and the next mount replaces a dead mount"),
    ("max_read|max_write|blksize|large_read", "leave it out: one read returns one frame, whatever its length"),
    ("fd|rootmode|user_id|group_id|blkdev", "leave it out: fusermount3 sets it"),
    ("bind|rbind|move|r?(shared|slave|private|unbindable)", "mount virtfs without it, then apply it with mount(8)"),
    ("loop|offset|sizelimit", "virtfs has neither an image nor a device"),
    ("nosymfollow", "tapN and rx are symbolic links, which would not work"),
)
# The field of Limits that each option sets.
_LIMITS = {"max_virts": "virts", "max_queue": "queue", "max_backlog": "backlog"}
_SIZES = {
    "max_history": "history",
    "capture": "capture",
    "max_memory": "memory",
    "max_user_memory": "user_memory",
}  # values in bytes, or with a suffix K, M or G
_MOST = 2**31 - 1
# With smaller limits, a user could not write a line of 64 KiB, which takes four times as much memory (files.text), or
# queue and capture a frame of 64 KiB, which may take a third of the limit (core.memory). A capture that can
# hold less than such a frame would miss it, and one that can hold nothing would be silent.
_LEAST = {"max_memory": 1 << 20, "max_user_memory": 512 << 10, "capture": 64 << 10}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The parsed options of one mount.

    limits: see Limits. log, state: the absolute path of the file, or None. debug: whether to log everything. source:
    the source to show in the mount table, or None for the default. flags: the name and the value of each flag that an
    option sets, see FLAGS. remount: whether to change an existing mount. given: the names of virtfs's own options
    (see own()) that the parsed text contained. internet: the unit of the interface that virtfs shell --net will create,
    or None; no text sets it.
    """

    limits: Limits = field(default_factory=Limits)
    log: str | None = None
    state: str | None = None
    debug: bool = False
    source: str | None = None
    flags: tuple[tuple[str, bool], ...] = ()
    remount: bool = False
    given: frozenset[str] = frozenset()
    internet: Unit | None = None

    def own(self) -> dict[str, str | None]:
        """Return virtfs's own options as a dict from name to text. The text is None if the option is not set.

        The text is `name=value`, or just `debug` for the option debug.
        """
        limits = {option: f"{option}={getattr(self.limits, name)}" for option, name in _LIMITS.items()}
        sizes = {option: f"{option}={format_size(getattr(self.limits, name))}" for option, name in _SIZES.items()}
        files = {name: f"{name}={path}" if path else None for name, path in (("state", self.state), ("log", self.log))}
        return limits | sizes | files | {"debug": "debug" if self.debug else None}

    def text(self) -> str:
        """Return virtfs's own options that differ from their defaults, as a list that parse() accepts."""
        usual = MountOptions().own()
        return ",".join(word for name, word in self.own().items() if word is not None and word != usual[name])


def parse(text: str, sloppy: bool = False, relative: bool = True) -> MountOptions:
    """Parse a comma-separated list of options. Of several conflicting options, the last one applies.

    sloppy: ignore unknown and unsupported options, as `mount -s` requests. relative: whether the name of a file may be
    relative, to the working directory of this process. VirtError: EINVAL, ERANGE. The error
    message quotes the option or its value. For an unsupported option, it names an alternative.
    """
    options = MountOptions()
    flags: dict[str, bool] = {}
    before = ""
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if name in _LIMITS:
            limit = {_LIMITS[name]: _number(word, value)}
            options = replace(options, limits=replace(options.limits, **limit))
        elif name in _SIZES:
            size = {_SIZES[name]: _size(word, name, value)}
            options = replace(options, limits=replace(options.limits, **size))
        elif name in ("log", "state"):
            if not value:
                raise VirtError(errno.EINVAL, f'mount option "{word}" needs a file name, as in {name}=/path/to/file')
            if not (relative or os.path.isabs(value)):
                why = "give the absolute path, because mount(8) and systemd do not run in your working directory"
                raise VirtError(errno.EINVAL, f'mount option "{word}": {why}')
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
        elif not (sloppy or _IGNORED.fullmatch(word)):
            raise VirtError(errno.EINVAL, _why_not(word, name, before))
        options = replace(options, given=options.given | {name} & MountOptions().own().keys())
        before = word
    return replace(options, flags=tuple(flags.items()))


def _why_not(word: str, name: str, before: str) -> str:
    """Return why an option is refused, with a remedy. before: the option before it."""
    sentence = next((sentence for names, sentence in _REFUSED if re.fullmatch(names, name)), None)
    if sentence:
        return f'mount option "{word}": {sentence}'
    known = (*MountOptions().own(), *FLAGS, "fsname", "remount")
    nearest = "".join(f", perhaps {near}" for near in get_close_matches(name, known, n=1))
    sentence = f'unknown mount option "{word}"{nearest}: "virtfs mount --help" lists all'
    if not nearest and before.startswith(("log=", "state=")):
        sentence += f'; the name of a file cannot contain a comma, which ends "{before}": use a symbolic link'
    return sentence


def _size(word: str, name: str, value: str) -> int:
    try:
        size = parse_size(value)
    except VirtError as error:
        raise VirtError(error.errno, f'mount option "{word}": {error.strerror}') from None
    if size < (least := _LEAST.get(name, 0)):
        raise VirtError(errno.ERANGE, f'mount option "{word}" is too small: the least is {format_size(least)}')
    return size


def _number(word: str, value: str) -> int:
    if not re.fullmatch("[0-9]+", value):
        raise VirtError(errno.EINVAL, f'mount option "{word}" needs a number, 1 to {_MOST}')
    if not 1 <= int(value[:20]) <= _MOST:
        raise VirtError(errno.ERANGE, f'mount option "{word}" is out of range: 1 to {_MOST}')
    return int(value)
