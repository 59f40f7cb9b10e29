"""Mark interfaces in the kernel: the alias (ip-link(8)) identifies the state file for which virtfs made them.

Persistent taps and bridges outlive a killed server, even one that is killed before it has recorded them in the state
file. So a bridge gets its mark in the system call that creates it, and a tap gets it before TUNSETPERSIST.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pyroute2.netlink.rtnl import RTM_GETLINK, RTM_SETLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from virtfs.core.errors import VirtError
from virtfs.host import netns
from virtfs.host.netnames import NAMED, open_netns
from virtfs.host.rtnl import Message, Rtnl

ADOPTING = " adopts"  # suffix of the mark of a bridge that may have taken over addresses and routes of its members


@dataclass(frozen=True, slots=True)
class Marked:
    """An interface with a mark.

    adopting: whether the mark ends in ADOPTING. netns: the identity of its network namespace (netns.identity).
    """

    name: str
    index: int
    kind: str  # IFLA_INFO_KIND: "tun" or "bridge"
    adopting: bool
    netns: tuple[int, int]


def mark_of(path: Path) -> str:
    """Return the mark for a state file; "" if its directory cannot be examined, for example because it is missing.

    path: the path of the file, without symbolic links. The mark depends on the name of the file and on the device and
    inode of its directory. So it stays the same when the file is replaced. A file with the same path in a container has
    another mark.
    """
    try:
        place = path.parent.stat()
    except OSError:
        return ""
    identity = f"{place.st_dev}:{place.st_ino}:".encode() + path.name.encode(errors="surrogateescape")
    return f"virtfs state {blake2b(identity, digest_size=8).hexdigest()}"


def marking(mark: str, which: int | str) -> Message:
    """Return the RTM_SETLINK message that gives an interface its mark. which: the index or the name."""
    change = ifinfmsg()
    change["attrs"] = [("IFLA_IFALIAS", mark)]
    if isinstance(which, int):
        change["index"] = which
    else:
        change["attrs"].append(("IFLA_IFNAME", which))
    return change


def set_mark(rtnl: Rtnl, mark: str, index: int) -> None:
    """Set the mark of an interface in the namespace of `rtnl`; "" removes it. VirtError: errors from the kernel."""
    rtnl.ask(RTM_SETLINK, marking(mark, index))


def is_marked(link: Message | None, mark: str) -> bool:
    """Return whether an RTM_NEWLINK message is about an interface with this mark."""
    return bool(mark) and link is not None and link.get_attr("IFLA_IFALIAS") in (mark, mark + ADOPTING)


def find_marked(mark: str) -> list[Marked]:
    """Return all interfaces with this mark in this process's network namespace and in those named by ip-netns(8).

    A namespace that cannot be entered is left out.
    """
    found = _marked_here(mark)
    seen = {netns.own_identity()}
    for name in _names():
        with suppress(OSError):
            fd = open_netns(name)
            try:
                if netns.identity(fd) not in seen:
                    seen.add(netns.identity(fd))
                    found += netns.inside(fd, lambda: _marked_here(mark))
            finally:
                os.close(fd)
    return found


def inside(marked: Marked, function: Callable[[], None]) -> None:
    """Call a function in the network namespace of a marked interface.

    VirtError ENXIO: the namespace is gone, or has no name any more.
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
    raise VirtError(errno.ENXIO, "its network namespace is gone")


def _names() -> Iterator[str]:
    try:
        yield from sorted(name for name in os.listdir(NAMED) if not name.isdecimal())
    except OSError:
        return


def _marked_here(mark: str) -> list[Marked]:
    with Rtnl() as rtnl:
        return [
            Marked(
                str(link.get_attr("IFLA_IFNAME")),
                link["index"],
                str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")),
                link.get_attr("IFLA_IFALIAS") == mark + ADOPTING,
                netns.own_identity(),
            )
            for link in rtnl.dump(RTM_GETLINK, ifinfmsg())
            if is_marked(link, mark)
        ]
