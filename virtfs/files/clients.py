"""clients: the open device files of an interface."""

from collections.abc import Callable, Iterator

from virtfs.core.quoting import word
from virtfs.files.device import Opens

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
