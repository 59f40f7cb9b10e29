"""What stands after `-o`: virtfs' own options, and those that fstab(5) has for other readers."""

import errno
import os
import re
from dataclasses import dataclass, field, replace

from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.core.units import parse_size

# Meant for mount(8), systemd or the boot; or without meaning where nothing is executed and no time is stored.
# What fusermount3 mounts is nosuid and nodev, said or not.
_OTHERS = re.compile(
    "defaults|(no)?auto|(no)?user|users|owner|group|nofail|_netdev|rw|(no)?suid|(no)?dev|(no)?exec"
    "|sync|async|dirsync|(no)?(dir|rel|strict|lazy)?a?time|(no)?iversion|silent|loud"
    "|(x-|X-|comment=|uhelper=|helper=).*"
)
_LIMITS = {"max_virts": "virts", "max_queue": "queue", "max_backlog": "backlog"}
_SIZES = {"max_history": "history", "capture": "capture"}  # in bytes, or with K, M, G
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class MountOptions:
    """limits: see there. log, state: an absolute path, or None. debug: log everything."""

    limits: Limits = field(default_factory=Limits)
    log: str | None = None
    state: str | None = None
    debug: bool = False


def parse(text: str, sloppy: bool = False) -> MountOptions:
    """Read a comma-separated list. sloppy: pass over what is unknown, mount(8)'s -s.

    VirtError EINVAL, ERANGE, quoting the option.
    """
    options = MountOptions()
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
        elif not (sloppy or _OTHERS.fullmatch(word)):
            raise VirtError(errno.EINVAL, f'unknown mount option "{word}"')
    return options


def _number(word: str, value: str) -> int:
    if not re.fullmatch("[0-9]+", value):
        raise VirtError(errno.EINVAL, f'"{word}" wants a number')
    if not 1 <= int(value[:20]) <= _MOST:
        raise VirtError(errno.ERANGE, f'"{word}" is out of range, 1 to {_MOST}')
    return int(value)
