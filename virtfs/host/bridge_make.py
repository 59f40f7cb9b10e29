"""Create a bridge, and never mistake the bridge of another program for it.

Another program may create an interface of the same name at any moment. Then the kernel refuses our request with
EEXIST. The same errno follows if our request has been carried out, but the answer was lost (ENOBUFS), so that the
request was repeated. A name cannot tell these two cases apart.

So a new bridge is created in a random interface group (ip-link(8)), in the same request. The group shows who created
the bridge, and the following requests select the bridge by group or index, never by name. In the end the bridge moves
to the default group. A killed server may leave it in the random group, which has no effect.
"""

import errno
import secrets
from contextlib import suppress

from virtfs.core.bridge import MAXADDR_DEFAULT, TIMEOUT_DEFAULT
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName
from virtfs.host import marks
from virtfs.host import netlink_messages as m
from virtfs.host.bridge import HostBridge
from virtfs.host.bridgeinfo import ask_link
from virtfs.host.links import Links
from virtfs.host.netlink_parts import ifinfmsg
from virtfs.host.rtnl import NLM_F_CREATE, NLM_F_EXCL, Request, Rtnl


def make(rtnl: Rtnl, links: Links, name: BridgeName, mark: str = "") -> int:
    """Create a bridge and return its index.

    mark: an alias to set in the system call that creates the bridge (host.marks), or "" for none.
    The new bridge is down, has the defaults of brconfig(8), and sends no IPv6 packets of its own.
    VirtError: EEXIST, an interface of this name exists; other errors from the kernel. After an error, no bridge stays.
    """
    # The chance that another link has this group is 1 in 2^31.
    group = m.IFLA_GROUP, m.U32.pack(secrets.randbits(31) | 1 << 31)
    try:
        return _make(rtnl, links, name, mark, group)
    except BaseException as failure:
        with suppress(VirtError):  # ENODEV: the group has no links
            rtnl.ask(m.RTM_DELLINK, m.link(0, group))
        if isinstance(failure, VirtError):
            raise VirtError(failure.errno, f'"{name}": {failure.strerror}') from failure
        raise


def _make(rtnl: Rtnl, links: Links, name: BridgeName, mark: str, group: tuple[int, bytes]) -> int:
    requests = [_creation(name, group)]
    if mark:
        # RTM_NEWLINK ignores IFLA_IFALIAS when it creates a link (net/core/rtnetlink.c rtnl_create_link). Without
        # NLM_F_CREATE and without an index, it changes all links of a group (rtnl_group_changelink).
        requests.append((m.RTM_NEWLINK, m.link(0, group, marks.alias(mark)), 0))
    created, *marked = rtnl.ask_all(requests)
    index = _index_of(rtnl, name, group)
    if index is None:
        raise created or VirtError(errno.ENXIO, "another program has deleted or replaced the new bridge")
    for refusal in marked:
        if refusal is not None:
            raise refusal
    links.quiet(HostBridge(rtnl, links, name, index))
    rtnl.ask(m.RTM_SETLINK, m.link(index, (m.IFLA_GROUP, m.U32.pack(0))))
    return index


def _creation(name: BridgeName, group: tuple[int, bytes]) -> Request:
    request = ifinfmsg()
    values = [("IFLA_BR_AGEING_TIME", TIMEOUT_DEFAULT * 100), ("IFLA_BR_FDB_MAX_LEARNED", MAXADDR_DEFAULT)]
    info = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": values})]
    request["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_GROUP", *m.U32.unpack(group[1])),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return m.RTM_NEWLINK, request, NLM_F_CREATE | NLM_F_EXCL


def _index_of(rtnl: Rtnl, name: BridgeName, group: tuple[int, bytes]) -> int | None:
    """Return the index of the interface of that name if it is in the group, and None otherwise."""
    link = ask_link(rtnl, name)
    if link is None or link.get_attr("IFLA_GROUP") != m.U32.unpack(group[1])[0]:
        return None
    index: int = link["index"]
    return index
