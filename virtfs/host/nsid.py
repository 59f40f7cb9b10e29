"""The number by which our network namespace knows another (RTM_NEWNSID, net/core/net_namespace.c; ip-netns(8) set).

A number holds nothing: it ends with its namespace and may then be given to the next.
"""

import errno

from pyroute2.netlink.rtnl import RTM_GETNSID, RTM_NEWNSID
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from virtfs.core.errors import VirtError
from virtfs.host.rtnl import Message, Rtnl

_UNKNOWN = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED, linux/net_namespace.h


def nsid_of(namespace: int) -> int:
    """The nsid of the namespace a descriptor means, given to it if it has none yet.

    Of the calling thread's namespace's numbers. Blocks shortly. VirtError: EPERM, ENOSPC; EINVAL, no namespace.
    """
    with Rtnl() as rtnl:
        nsid = _ask(rtnl, namespace)
        if nsid == _UNKNOWN:
            try:
                rtnl.ask(RTM_NEWNSID, _message(namespace, ("NETNSA_NSID", _UNKNOWN)))  # the kernel chooses one
            except VirtError as refusal:
                if refusal.errno != errno.EEXIST:  # somebody else was quicker
                    raise
            nsid = _ask(rtnl, namespace)
    if nsid == _UNKNOWN:
        raise VirtError(errno.EIO, "the kernel gives a network namespace no number")
    return nsid


def _ask(rtnl: Rtnl, namespace: int) -> int:
    (answer,) = rtnl.ask(RTM_GETNSID, _message(namespace))
    nsid: int = answer.get_attr("NETNSA_NSID")
    return nsid


def _message(namespace: int, *more: tuple[str, int]) -> Message:
    message = nsidmsg()
    message["attrs"] = [("NETNSA_FD", namespace), *more]
    return message
