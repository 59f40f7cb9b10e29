"""clients: the open device files of an interface."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from virtfs.core.quoting import word
from virtfs.files.device import DeviceHandle, Opens
from virtfs.forward.tasks import in_thread
from virtfs.host.holders import OpenFile, having_open
from virtfs.host.processes import runs

HEAD = ("PID", "COMMAND", "FILE", "TAKEN", "WAITING", "DROPPED", "UID")


def clients_text(opens: Opens, command: Callable[[int], str]) -> Iterator[str]:
    """Yield a table with a header and one row per open.

    The first pieces are empty, one per open, so that other tasks may run while the table is made.

    The columns are process id, command and file, the numbers of frames taken, waiting and dropped, and the user.

    command: returns the name of a process, given its id. The name is quoted, because a process can choose any name
    (prctl(2), PR_SET_NAME).
    """
    rows, widths = [HEAD], list(map(len, HEAD))
    for handle in opens:
        row = (
            str(handle.process()),
            word(command(handle.process())),
            handle.node.label,
            str(handle.taken()),
            str(handle.pending()),
            str(handle.dropped),
            str(handle.user.uid),
        )
        rows.append(row)
        widths = list(map(max, widths, map(len, row)))
        yield ""
    for row in rows:
        yield " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


async def follow_forks(opens: Opens, directory: str) -> None:
    """Update the process of each open whose process has ended: a child may have inherited the descriptor.

    FUSE reports the process that opens a file, and none that inherits the descriptor, as after daemon(3). Never fails.
    directory: the path of the mount point.
    """
    if known := tuple(opens):
        with suppress(OSError):  # no thread can be started: the table then shows what is known
            await in_thread(_follow, known, directory)


def _follow(opens: Iterable[DeviceHandle], directory: str) -> None:
    """Do the work of follow_forks(). Blocks: reads /proc for each open, and all of it only if a process has ended."""
    living, ended = set(), []
    for handle in opens:
        pid = handle.process()
        if pid and not runs(pid):  # 0: it is in another PID namespace
            ended.append((handle, f"{directory}/{handle.node.path}"))
        else:
            living.add(pid)
    found = having_open({path for _, path in ended}) if ended else {}
    for handle, path in ended:
        heirs = [one.process for one in found[path] if _may_be(handle, one)]
        if heirs:
            # Opens of one file cannot be told apart. Prefer a process that the table does not name yet.
            heir = next((pid for pid in heirs if pid not in living), heirs[0])
            handle.inherited(heir)
            living.add(heir)


def _may_be(handle: DeviceHandle, found: OpenFile) -> bool:
    """Return whether a descriptor may be an inherited one of this open.

    A user can pass a descriptor to a process of another user, which root would then end in place of the user's own
    (RIGHTS in virtfs(5)). So only an open by root, which may have dropped its rights since, has heirs of other users.
    """
    flags = handle.seated()
    same = flags is None or found.access == flags & os.O_ACCMODE
    return same and handle.user.uid in (0, found.uid)
