"""clients: who has which stream of an interface open."""

from collections.abc import Callable

from virtfs.files.device import Opens

HEAD = ("PID", "COMMAND", "FILE", "TAKEN", "WAITING", "DROPPED")


def clients_text(opens: Opens, command: Callable[[int], str]) -> str:
    """A table with a head line: pid, command, file, frames taken, waiting for it and dropped by it.

    command: the name of a process.
    """
    rows = [HEAD] + [
        (
            str(handle.user.pid),
            command(handle.user.pid),
            handle.stream.label,
            str(handle.taken()),
            str(handle.pending()),
            str(handle.dropped),
        )
        for handle in opens
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "".join(
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
