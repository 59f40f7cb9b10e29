"""Files below a mount point, which a mount hides.

`echo create 3 >/mnt/virt/ctl` before the mount makes a plain file `ctl`, and no interface.
"""

import os

from virtfs.core.quoting import quoted
from virtfs.fuse.mounttable import mounted_at

_SHOWN = 5  # maximum number of names in the warning


def hidden_names(path: str) -> str:
    """Return a warning about the files that a mount at a directory hides, or "" if there are none.

    path: a resolved directory. If something is mounted there, it is not accessed, because its server may hang.
    """
    try:
        names = [] if mounted_at(path) else sorted(os.listdir(path))
    except OSError:
        return ""  # mounting reports the error
    if not names:
        return ""
    some = ", ".join(map(quoted, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
    return f'"{path}" is not empty: the mount hides {some}; a shell that is already there must cd to it again'
