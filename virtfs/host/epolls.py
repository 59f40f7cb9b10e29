"""Find an epoll descriptor of this process by what it watches."""

import re
from contextlib import suppress
from pathlib import Path

_OPEN = Path("/proc/self/fdinfo")


def watcher_of(fd: int) -> int | None:
    """Return the epoll descriptor of this process that watches `fd`, or None if /proc shows none.

    The kernel lists the descriptors that an epoll descriptor watches in lines "tfd: N …" (proc_pid_fdinfo(5)).
    """
    watched = re.compile(rf"^tfd:\s+{fd}\s", re.MULTILINE)
    with suppress(OSError):
        for entry in _OPEN.iterdir():
            with suppress(OSError):  # iterdir() has closed its own descriptor by now
                if watched.search(entry.read_text()):
                    return int(entry.name)
    return None
