"""Table: a dict whose missing names are an OSError, too, which says which names there are."""

import errno
from collections.abc import Iterable, Mapping
from typing import TypeVar

from virtfs.client.folder import Missing
from virtfs.core.quoting import quoted

T = TypeVar("T")


class Table(dict[str, T]):
    """What a mount has of one kind, by name. KeyError, which is also a FileNotFoundError: nothing has this name.

    kind: the kind, such as "counter".

    >>> net.stats["virt3"]["tx_frame"]
    Traceback (most recent call last):
    virtfs.client.folder.Missing: [Errno 2] no counter "tx_frame": the counters are rx_frames, ...
    """

    __slots__ = ("_kind",)

    def __init__(self, kind: str, rows: Mapping[str, T]) -> None:
        super().__init__(rows)
        self._kind = kind

    def __missing__(self, name: object) -> T:
        raise missing(self._kind, name, self)


def missing(kind: str, name: object, names: Iterable[str], path: str | None = None) -> Missing:
    """Return the error for a name that does not exist. names: those that do. path: the file, if it would be one.

    >>> print(missing("bridge", "bridge1", ["bridge0"]))
    [Errno 2] no bridge "bridge1": the bridges are bridge0
    """
    known = ", ".join(names)
    those = f"the {kind}s are {known}" if known else f"there are no {kind}s"
    return Missing(errno.ENOENT, f"no {kind} {quoted(str(name))}: {those}", *([path] if path else []))
