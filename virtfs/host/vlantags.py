"""Where a frame that the host sends over a tap has its VLAN tag: in the frame, or beside it (skb->vlan_tci).

A tap says that its hardware inserts tags (drivers/net/tun.c, hw_features). So what comes from a VLAN interface or
over a bridge has its tag beside it, and the kernel puts it in only when the frame is read: after the filter ran.
Measured on 6.18: of such frames the filter "vlan" lets none pass, and "ip" every one that carries IP.
"""

import errno
from collections.abc import Iterable
from contextlib import closing

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice

from virtfs.core.errors import VirtError

_BESIDE = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")  # net/ethtool/common.c, netdev_features_strings


def put_in_frames(name: str) -> tuple[str, ...]:
    """From now on tags are in the frames. Gives the features that this turned off, for put_back().

    The interface is one of the calling thread's network namespace. Blocks for some 2 ms. VirtError: ENXIO, it is
    gone; EPERM, not allowed.
    """
    with closing(IoctlEthtool(name)) as ethtool:
        try:
            features = ethtool.get_features()
            found = tuple(feature for feature in _BESIDE if feature in features and features.is_active(feature))
            _set(ethtool, found, False)
        except (EthtoolError, OSError) as refusal:
            raise _told(name, refusal) from refusal
    return found


def put_back(name: str, features: Iterable[str]) -> None:
    """Turn on again what put_in_frames() turned off. VirtError: as there."""
    with closing(IoctlEthtool(name)) as ethtool:
        try:
            _set(ethtool, features, True)
        except (EthtoolError, OSError) as refusal:
            raise _told(name, refusal) from refusal


def _set(ethtool: IoctlEthtool, names: Iterable[str], on: bool) -> None:
    features = ethtool.get_features()
    for name in names:
        features.set_value(name, on)
    ethtool.set_features(features)


def _told(name: str, refusal: Exception) -> VirtError:
    if isinstance(refusal, NoSuchDevice):
        return VirtError(errno.ENXIO, "the tap's interface is gone")
    number = getattr(refusal, "errno", None) or errno.EOPNOTSUPP
    return VirtError(number, f'"{name}" does not let its VLAN tags be put into frames for a filter: {refusal}')
