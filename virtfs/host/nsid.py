"""Network namespace ids: the number by which our namespace knows another (ip-netns(8) set).

An nsid (RTM_NEWNSID, net/core/net_namespace.c) does not keep its namespace alive. It ends with the namespace and may be
assigned again.
"""

import errno

from pyroute2.netlink.rtnl import RTM_GETNSID, RTM_NEWNSID
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from virtfs.core.errors import VirtError
from virtfs.host.rtnl import Message, Rtnl

_UNKNOWN = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED, linux/net_namespace.h


def nsid_of(namespace: int) -> int:
    """Return the nsid of the namespace that a descriptor refers to; assign one if it has none.

    nsids belong to the calling thread's namespace. Blocks briefly. VirtError: EPERM, ENOSPC; EINVAL, not a namespace.
    """
    with Rtnl() as rtnl:
        nsid = _ask(rtnl, namespace)
        if nsid == _UNKNOWN:
            try:
                rtnl.ask(RTM_NEWNSID, _message(namespace, ("NETNSA_NSID", _UNKNOWN)))  # the kernel chooses one
            except VirtError as refusal:
                if refusal.errno != errno.EEXIST:  # EEXIST: another program assigned one meanwhile
                    raise
            nsid = _ask(rtnl, namespace)
    if nsid == _UNKNOWN:
        raise VirtError(errno.EIO, "the kernel assigned no nsid to the network namespace")
    return nsid


def _ask(rtnl: Rtnl, namespace: int) -> int:
    (answer,) = rtnl.ask(RTM_GETNSID, _message(namespace))
    nsid: int = answer.get_attr("NETNSA_NSID")
    return nsid


def _message(namespace: int, *more: tuple[str, int]) -> Message:
    message = nsidmsg()
    message["attrs"] = [("NETNSA_FD", namespace), *more]
    return message
