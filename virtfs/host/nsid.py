"""Network namespace ids (nsids): the numbers that identify other namespaces in ours (`ip netns set`, ip-netns(8)).

An nsid (RTM_NEWNSID, net/core/net_namespace.c) does not keep its namespace alive. After the namespace is destroyed, the
kernel may assign the same nsid to another namespace.
"""

import errno

from virtfs.core.errors import VirtError
from virtfs.host import netlink_messages as m
from virtfs.host.netlink_attributes import parse
from virtfs.host.rtnl import Rtnl

_UNKNOWN = b"\xff\xff\xff\xff"  # NETNSA_NSID_NOT_ASSIGNED, linux/net_namespace.h


def nsid_of(namespace: int) -> int:
    """Return the nsid of a namespace. If the namespace has none, assign one first.

    The nsid is valid only in the calling thread's namespace. Blocks briefly. namespace: a descriptor. VirtError: EPERM;
    ENOSPC; EINVAL, the descriptor does not refer to a namespace.
    """
    with Rtnl() as rtnl:
        nsid = _ask(rtnl, namespace)
        if nsid == _UNKNOWN:
            try:
                rtnl.ask(m.RTM_NEWNSID, m.namespace(namespace, (m.NETNSA_NSID, _UNKNOWN)))  # the kernel chooses one
            except VirtError as refusal:
                if refusal.errno != errno.EEXIST:  # EEXIST: another program has just assigned one
                    raise
            nsid = _ask(rtnl, namespace)
    if nsid == _UNKNOWN:
        raise VirtError(errno.EIO, "the kernel assigned no nsid to the network namespace")
    number: int = m.U32.unpack(nsid)[0]
    return number


def _ask(rtnl: Rtnl, namespace: int) -> bytes:
    answer = rtnl.ask_one(m.RTM_GETNSID, m.namespace(namespace))
    return parse(answer.body, m.RTGENMSG.size)[m.NETNSA_NSID]
