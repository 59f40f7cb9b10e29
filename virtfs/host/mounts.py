"""mount(2), for the caller's own mount namespace."""

import ctypes
import os

_NOSUID, _NODEV = 2, 4  # linux/mount.h
_BIND, _RECURSIVE = 4096, 16384
_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(directory: str) -> None:
    """Cover a directory with an empty tmpfs that everybody may read. OSError: EPERM, EACCES, what mount(2) says."""
    _mount("tmpfs", directory, "tmpfs", _NOSUID | _NODEV, "mode=0755")


def bind(source: str, target: str) -> None:
    """Show a file or directory, with what is mounted below it, at another path as well. OSError as mount(2).

    Recursive, since a user namespace may not uncover what its parent has mounted over: mount_namespaces(7),
    "Restrictions on mount namespaces".
    """
    _mount(source, target, None, _BIND | _RECURSIVE, None)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, kind, data)]
    if _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
