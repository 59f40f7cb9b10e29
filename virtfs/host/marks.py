"""Mark interfaces in the kernel: the alias (ip-link(8)) identifies the state file that they belong to.

Persistent taps and bridges outlive a killed server, even one that is killed before it has recorded them in the state
file. So a bridge gets its mark in the system call that creates it, and a tap gets it before TUNSETPERSIST.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from virtfs.core.errors import VirtError
from virtfs.host import netlink_messages as m
from virtfs.host import netns
from virtfs.host.netlink_values import kind_of, link_of
from virtfs.host.netnames import NAMED, open_netns
from virtfs.host.rtnl import Rtnl

_log = logging.getLogger(__name__)

# Errnos from open_netns() and setns(2): the namespace is gone, or this process may not enter it.
_CANNOT_ENTER = (errno.ENXIO, errno.EINVAL, errno.EPERM, errno.EACCES)

_MARK = "virtfs state "  # how the mark of every state file begins
# Suffix of the mark in a bridge's alias: the bridge may hold addresses and routes taken over from members. The indices
# of those members, in decimal, come after the suffix.
ADOPTING = " adopts"
_ALIAS_MAX = 255  # bytes; IFALIASZ in include/uapi/linux/if.h


@dataclass(frozen=True, slots=True)
class Marked:
    """An interface with a mark.

    adopting: the members that adopting_of() returns. netns: the identity of its network namespace (netns.identity).
    """

    name: str
    index: int
    kind: str  # IFLA_INFO_KIND: "tun" or "bridge"
    adopting: frozenset[int]
    netns: tuple[int, int]


def mark_of(path: Path) -> str:
    """Return the mark for a state file, or "" if its directory cannot be examined, perhaps because it is missing.

    path: the path of the file, without symbolic links. The mark depends on the name of the file and on the device and
    inode of its directory. So the mark stays the same when the file is replaced. A file with the same path in a
    container has a different mark.
    """
    try:
        place = path.parent.stat()
    except OSError:
        return ""
    identity = f"{place.st_dev}:{place.st_ino}:".encode() + path.name.encode(errors="surrogateescape")
    return f"{_MARK}{blake2b(identity, digest_size=8).hexdigest()}"


def alias(mark: str) -> tuple[int, bytes]:
    """Return the netlink attribute that sets a mark (IFLA_IFALIAS)."""
    return m.IFLA_IFALIAS, mark.encode() + b"\0"


def set_mark(rtnl: Rtnl, mark: str, index: int) -> None:
    """Set the mark of an interface in the namespace of `rtnl`; "" removes it. VirtError: errors from the kernel."""
    rtnl.ask(m.RTM_SETLINK, m.link(index, alias(mark)))


def alias_of(rtnl: Rtnl, index: int) -> str:
    """Return the alias of an interface, or "" if it has none, or if there is no such interface."""
    try:
        answer = rtnl.ask_one(m.RTM_GETLINK, m.link(index))
    except VirtError as refusal:
        if refusal.errno != errno.ENODEV:
            raise
        return ""
    return link_of(answer.body).alias


def is_marked(alias: str, mark: str) -> bool:
    """Return whether an alias is this mark, alone or with ADOPTING."""
    return bool(mark) and (alias == mark or alias.startswith(mark + ADOPTING))


def is_left(alias: str, mark: str, recorded: bool) -> bool:
    """Return whether a killed server of this state file has left an interface behind.

    alias: that of the interface. recorded: whether the state file says that virtfs made an interface of this name.

    An interface of a recorded name that has no mark belongs to others: the one that virtfs made has been renamed or
    deleted. The mark of another state file counts, because this one may be a copy.
    """
    return is_marked(alias, mark) or (recorded and (not mark or alias.startswith(_MARK)))


def adopting(mark: str, members: Iterable[int]) -> str:
    """Return the mark of a bridge that may have taken over addresses and routes of these members.

    members: their interface indices. The result lists as many of them as fit into an alias, the newest first.
    """
    text = mark + ADOPTING
    for index in sorted(members, reverse=True):
        if len(text) + len(f" {index}") <= _ALIAS_MAX:
            text += f" {index}"
    return text


def adopting_of(alias: str, mark: str) -> frozenset[int]:
    """Return the interface indices in an alias that adopting() made. Return none if it did not make the alias."""
    if not is_marked(alias, mark):
        return frozenset()
    return frozenset(int(word) for word in alias.removeprefix(mark + ADOPTING).split() if word.isdecimal())


def find_marked(mark: str) -> list[Marked]:
    """Return all interfaces with this mark in this process's network namespace and in those named by ip-netns(8).

    A namespace that cannot be entered is left out. Any other failure to list the interfaces of a namespace is logged.
    """
    found = _marked_here(mark)
    seen = {netns.own_identity()}
    for name in _names():
        try:
            fd = open_netns(name)
            try:
                if netns.identity(fd) not in seen:
                    seen.add(netns.identity(fd))
                    found += netns.inside(fd, lambda: _marked_here(mark))
            finally:
                os.close(fd)
        except OSError as refusal:
            if refusal.errno not in _CANNOT_ENTER:
                _log.warning("cannot look for leftovers in network namespace %s: %s", name, refusal.strerror)
    return found


def inside(marked: Marked, function: Callable[[], None]) -> None:
    """Call a function in the network namespace of a marked interface.

    VirtError ENXIO: the namespace is gone, or no longer has a name.
    """
    if marked.netns == netns.own_identity():
        function()
        return
    for name in _names():
        try:
            fd = open_netns(name)
        except VirtError:
            continue
        try:
            if netns.identity(fd) == marked.netns:
                netns.inside(fd, function)
                return
        finally:
            os.close(fd)
    raise VirtError(errno.ENXIO, "the network namespace no longer has a name, or is gone")


def _names() -> Iterator[str]:
    try:
        yield from sorted(name for name in os.listdir(NAMED) if not name.isdecimal())
    except OSError:
        return


def _marked_here(mark: str) -> list[Marked]:
    with Rtnl() as rtnl:
        bodies = [reply.body for reply in rtnl.dump(m.RTM_GETLINK, m.link(0))]
    return [
        Marked(link.name, link.index, kind_of(body), adopting_of(link.alias, mark), netns.own_identity())
        for body in bodies
        if is_marked((link := link_of(body)).alias, mark)
    ]
