"""Look up an existing interface before virtfs attaches to it, and the settings that show who may attach to a tap."""

from dataclasses import dataclass
from errno import ENODEV

from virtfs.core.errors import VirtError
from virtfs.host import netlink_messages as m
from virtfs.host.netlink_attributes import Attributes, parse, text
from virtfs.host.netlink_values import number
from virtfs.host.rtnl import Rtnl

_IFF_TAP = 0x0002  # linux/if_tun.h


@dataclass(frozen=True, slots=True)
class Found:
    """An existing interface with the tap's name."""

    index: int
    busy: str  # why virtfs cannot attach to it, or "" if it can
    multi_queue: bool
    held: bool = False  # whether `busy` is that other programs hold it


def exists(name: str) -> bool:
    """Return whether the calling thread's network namespace has an interface of that name."""
    try:
        with Rtnl() as rtnl:
            rtnl.index(name)
    except VirtError as refusal:
        if refusal.errno != ENODEV:
            raise
        return False
    return True


def find(name: str) -> Found | None:
    """Return the interface of that name in the calling thread's network namespace, or None if there is none.

    If a tap has a single queue, the kernel refuses a second attach. If a tap can have several queues, the kernel lets
    several programs share it, so this function counts the attached queues.
    """
    try:
        index, link = _ask(name)
    except VirtError as refusal:
        if refusal.errno == ENODEV:
            return None
        raise
    information = parse(link.get(m.IFLA_LINKINFO, b""))
    data = parse(information.get(m.IFLA_INFO_DATA, b""))
    if text(information.get(m.IFLA_INFO_KIND, b"")) != "tun" or data.get(m.IFLA_TUN_TYPE) != bytes([_IFF_TAP]):
        return Found(index, "exists but is not a tap", False)
    multi_queue = any(data.get(m.IFLA_TUN_MULTI_QUEUE, b""))
    # These counts are present only for IFF_MULTI_QUEUE.
    queues = sum(number(data, count) or 0 for count in (m.IFLA_TUN_NUM_QUEUES, m.IFLA_TUN_NUM_DISABLED_QUEUES))
    return Found(index, "is held by another program" if queues else "", multi_queue, held=bool(queues))


@dataclass(frozen=True, slots=True)
class Standing:
    """The settings of a tap that any holder of its descriptor can change, and that rtnetlink reports.

    owner, group: who may attach (TUNSETOWNER, TUNSETGROUP), None if the tap has none. type: the link type (TUNSETLINK),
    a number of linux/if_arp.h.
    """

    owner: int | None
    group: int | None
    type: int


def is_another(name: str, index: int) -> bool:
    """Return whether the interface of this name is not the one with this index.

    Call this after attaching to an existing tap by its name: if it has been deleted just before, TUNSETIFF has made a
    new one. If it cannot be determined, for example because no descriptor is left, return False.
    """
    try:
        with Rtnl() as rtnl:
            return rtnl.index(name) != index
    except OSError:
        return False


def standing(name: str) -> Standing:
    """Return the Standing of a tap in the calling thread's namespace. VirtError ENODEV: there is no such interface."""
    with Rtnl() as rtnl:
        link = rtnl.ask_one(m.RTM_GETLINK, m.link(0, m.named(name)))
    _family, link_type, _index, _flags, _change = m.IFINFOMSG.unpack_from(link.body)
    data = parse(parse(parse(link.body, m.IFINFOMSG.size).get(m.IFLA_LINKINFO, b"")).get(m.IFLA_INFO_DATA, b""))
    return Standing(number(data, m.IFLA_TUN_OWNER), number(data, m.IFLA_TUN_GROUP), link_type)


def _ask(name: str) -> tuple[int, Attributes]:
    """Return the index and the attributes of an interface."""
    with Rtnl() as rtnl:
        link = rtnl.ask_one(m.RTM_GETLINK, m.link(0, m.named(name)))
    _family, _type, index, _flags, _change = m.IFINFOMSG.unpack_from(link.body)
    return index, parse(link.body, m.IFINFOMSG.size)
