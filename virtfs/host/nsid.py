"""Network namespace ids (nsids): the numbers that identify other namespaces in ours (`ip netns set`, ip-netns(8)).

An nsid (RTM_NEWNSID, net/core/net_namespace.c) does not keep its namespace alive. After the namespace is destroyed, the
kernel may assign the same nsid to another namespace.
"""

import errno

from pyroute2.netlink.rtnl import RTM_GETNSID, RTM_NEWNSID
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from virtfs.core.errors import VirtError
from virtfs.host.rtnl import Message, Rtnl

_UNKNOWN = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED, linux/net_namespace.h


def nsid_of(namespace: int) -> int:
    """Return the nsid of a namespace. If the namespace has none, assign one first.

    The nsid is valid only in the calling thread's namespace. Blocks briefly. namespace: a descriptor. VirtError: EPERM;
    ENOSPC; EINVAL, the descriptor does not refer to a namespace.
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
