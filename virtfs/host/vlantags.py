"""Where a frame that the host sends over a tap has its VLAN tag: in the frame, or beside it (skb->vlan_tci).

A tap says that its hardware inserts tags (drivers/net/tun.c, hw_features). So what comes from a VLAN interface or
over a bridge has its tag beside it, and the kernel puts it in only when the frame is read: after the filter ran.
Measured on 6.18: of such frames the filter "vlan" lets none pass, and "ip" every one that carries IP.
"""

from collections.abc import Iterable
from contextlib import closing

from pyroute2.ethtool.ioctl import EthtoolError

from virtfs.host.features import Ethtool, told

_BESIDE = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")  # net/ethtool/common.c, netdev_features_strings
_WHAT = "let its VLAN tags be put into frames for a filter"


def put_in_frames(name: str) -> tuple[str, ...]:
    """From now on tags are in the frames. Gives the features that this turned off, for put_back().

    The interface is one of the calling thread's network namespace. Blocks for some 2 ms. VirtError: ENXIO, it is
    gone; EPERM, not allowed.
    """
    try:
        with closing(Ethtool(name)) as ethtool:
            features = ethtool.get_features()
            found = tuple(feature for feature in _BESIDE if feature in features and features.is_active(feature))
            _set(ethtool, found, False)
            return found
    except (EthtoolError, OSError) as refusal:
        raise told(name, refusal, _WHAT) from refusal


def put_back(name: str, features: Iterable[str]) -> None:
    """Turn on again what put_in_frames() turned off. VirtError: as there."""
    try:
        with closing(Ethtool(name)) as ethtool:
            _set(ethtool, features, True)
    except (EthtoolError, OSError) as refusal:
        raise told(name, refusal, _WHAT) from refusal


def _set(ethtool: Ethtool, names: Iterable[str], on: bool) -> None:
    features = ethtool.get_features()
    for name in names:
        features.set_value(name, on)
    ethtool.set_features(features)
