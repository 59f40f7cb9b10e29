"""mount(2) in the caller's mount namespace."""

import ctypes
import os

from virtfs.host.libc import last_error, libc

_NOSUID, _NODEV = 2, 4  # linux/mount.h
_BIND, _RECURSIVE = 4096, 16384


def mount_tmpfs(directory: str) -> None:
    """Mount an empty tmpfs with mode 0755 on a directory.

    OSError: errors from mount(2), for example EACCES if AppArmor forbids the mount.
    """
    _mount("tmpfs", directory, "tmpfs", _NOSUID | _NODEV, "mode=0755")


def bind(source: str, target: str) -> None:
    """Bind-mount a file or directory, with all mounts below it, at another path. OSError: errors from mount(2).

    In a user namespace the kernel refuses to bind a directory without the mounts below it, because that would
    reveal the files that those mounts cover (mount_namespaces(7), "Restrictions on mount namespaces").
    """
    _mount(source, target, None, _BIND | _RECURSIVE, None)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, kind, data)]
    if libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]) != 0:
        failure = last_error()
        failure.filename = target
        raise failure
