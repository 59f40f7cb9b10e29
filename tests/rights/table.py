"""The table of permissions. The tests try each row on a mount, and compare the man page with the table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# True: always allowed. False: never allowed. A number: allowed if the interface's mode has this bit.
Cell = bool | int


@dataclass(frozen=True, slots=True)
class Row:
    """An action, and the users who may do it."""

    what: str
    root: Cell
    owner: Cell
    group: Cell
    others: Cell

    def allows(self, who: str, mode: int) -> bool:
        """Return whether a class of users (root, owner, group or others) may do this if the interface has `mode`."""
        cell: Cell = getattr(self, who)
        return cell if isinstance(cell, bool) else bool(mode & cell)


ROWS: Final = (
    Row("read text files", True, True, True, True),
    Row("read frame", True, 0o400, 0o040, 0o004),
    Row("write frame", True, 0o200, 0o020, 0o002),
    Row("write values", True, 0o200, 0o020, 0o002),
    Row("use its verbs", True, 0o200, 0o020, 0o002),
    Row("chmod frame", True, True, False, False),
    Row("chown, chgrp", True, False, False, False),
    Row("verbs for root alone", True, False, False, False),
    Row("the mount's ctl, clone", True, False, False, False),
    Row("bridges", True, False, False, False),
)
ROW: Final = {row.what: row for row in ROWS}

NEVER: Final = Row("never", False, False, False, False)
READ, WRITE = "read frame", "write frame"
TEXT, VALUE, VERBS, CHMOD = "read text files", "write values", "use its verbs", "chmod frame"
ROOTS, MOUNTS, BRIDGES = "verbs for root alone", "the mount's ctl, clone", "bridges"

# For each file in the interface's directory, or in the mount's: the rows for opening it to read and to write.
VIRT_FILES: Final[dict[str, tuple[str, str | None]]] = {
    "ctl": (TEXT, VERBS),
    "frame": (READ, WRITE),
    "hex": (READ, WRITE),
    "stream": (READ, WRITE),
    "pcap": (READ, None),
    "history": (READ, None),
    "inject": ("", WRITE),
    **dict.fromkeys(
        (
            "address", "mtu", "up", "promisc", "filter", "impair", "queue", "backlog", "strict", "exclusive",
            "carrier", "upopen", "description", "pace", "history_size",
        ),
        (TEXT, VALUE),
    ),
    **dict.fromkeys(("antispoof", "persist", "tap/address", "tap/netns", "tap/bridge"), (TEXT, ROOTS)),
    **dict.fromkeys(
        (
            "next", "clients", "tap/name", "tap/index", "tap/addresses", "tap/up", "tap/carrier", "tap/mtu",
            "wait/up", "wait/down", "wait/carrier", "wait/frame", "wait/reader", "wait/gone",
        ),
        (TEXT, None),
    ),
    "stats/": (TEXT, None),  # all files in this directory
}  # fmt: skip
MOUNT_FILES: Final[dict[str, tuple[str, str | None]]] = {
    "ctl": (TEXT, MOUNTS),
    "clone": (MOUNTS, MOUNTS),
    "pcap": (MOUNTS, None),
    "memory": (MOUNTS, None),
    **dict.fromkeys(
        ("events", "last_error", "help", "ifconfig", "status.json", "topology", "stats", "metrics", "version"),
        (TEXT, None),
    ),
}  # fmt: skip
BRIDGE_FILES: Final[dict[str, tuple[str, str | None]]] = {
    "ctl": (TEXT, BRIDGES),
    **dict.fromkeys(("status", "members", "addresses"), (TEXT, None)),
}

# For each verb, a line that uses it, and the row that says who may use it, among the users who may write the ctl.
VERB: Final[dict[str, tuple[str, str]]] = {
    "up": ("up", VERBS),
    "down": ("down", VERBS),
    "mtu": ("mtu 1400", VERBS),
    "link": ("link 02:00:00:00:00:01", VERBS),
    "mode": ("mode 0666", CHMOD),
    "queue": ("queue 99", VERBS),
    "backlog": ("backlog 3", VERBS),
    "strict": ("strict", VERBS),
    "-strict": ("-strict", VERBS),
    "promisc": ("promisc", VERBS),
    "-promisc": ("-promisc", VERBS),
    "upopen": ("upopen", VERBS),
    "-upopen": ("-upopen", VERBS),
    "carrier": ("carrier open", VERBS),
    "exclusive": ("exclusive both", VERBS),
    "description": ("description a note", VERBS),
    "mark": ("mark a moment", VERBS),
    "filter": ("filter arp", VERBS),
    "-filter": ("-filter", VERBS),
    "impair": ("impair delay 1ms", VERBS),
    "-impair": ("-impair", VERBS),
    "pace": ("pace 1", VERBS),
    "history": ("history 65536", VERBS),
    "-history": ("-history", VERBS),
    "taplink": ("taplink 02:00:00:00:00:02", ROOTS),
    "inet": ("inet 10.9.9.1/24", ROOTS),
    "-inet": ("-inet 10.9.0.1", ROOTS),
    "inet6": ("inet6 fd00:9::2/64", ROOTS),
    "-inet6": ("-inet6 fd00:9::1", ROOTS),
    "bridge": ("bridge br9", ROOTS),
    "-bridge": ("-bridge", ROOTS),
    "netns": ("netns net9", ROOTS),
    "antispoof": ("antispoof", ROOTS),
    "-antispoof": ("-antispoof", ROOTS),
    "persist": ("persist", ROOTS),
    "-persist": ("-persist", ROOTS),
    "owner": ("owner 4001", ROOTS),
    "group": ("group 4002", ROOTS),
}
SETTING: Final = "inet 10.9.0.1/24 inet6 fd00:9::1/64"  # the addresses that the lines above remove


def rows_of(name: str, files: dict[str, tuple[str, str | None]]) -> tuple[Row, Row]:
    """Return the rows for reading and for writing a file. Raises KeyError if the table lacks the file."""
    read, write = files.get(name.partition("/")[0] + "/") or files[name]
    return ROW.get(read, NEVER), NEVER if write is None else ROW[write]


def man_rows(page: str) -> Iterator[Row]:
    """Yield the rows of the table in the man page's section RIGHTS."""
    section = page[page.index(".Sh RIGHTS") :]
    cells: dict[str, Cell] = {"yes": True, "no": False}
    for what, rest in re.findall(r'^\.It "?([^"\n]+?)"? Ta (.*)$', section[: section.index("\n.El")], re.MULTILINE):
        if not what.startswith("Em"):
            yield Row(what, *(cells[cell] if cell in cells else int(cell, 8) for cell in rest.split(" Ta ")))


def man_verbs(page: str, section: str) -> set[str]:
    """Return the verbs that a subsection of the man page lists."""
    rest = page[page.index(f".Ss {section}\n") :]
    return set(re.findall(r"^\.It Cm (\S+)", rest[: rest.index("\n.El")], re.MULTILINE))
