"""VLAN tags of the frames that the host sends over a tap: in the frame, or beside it (skb->vlan_tci).

A tap claims that its hardware inserts tags (drivers/net/tun.c hw_features). So frames from a VLAN interface or over a
bridge have their tag beside them, and the kernel inserts it when the frame is read, after the filter ran. Measured on
Linux 6.18: the filter "vlan" passes none of these frames, and "ip" passes all that carry IP.
"""

from collections.abc import Iterable
from contextlib import closing

from pyroute2.ethtool.ioctl import EthtoolError

from virtfs.host.features import Ethtool, ethtool_error

_BESIDE = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")  # net/ethtool/common.c, netdev_features_strings
_SENTENCE = 'cannot change where "{}" keeps its VLAN tags'


def put_in_frames(name: str) -> tuple[str, ...]:
    """Put VLAN tags into the frames from now on; return the features turned off for that, to pass to put_back().

    name: of an interface in the calling thread's network namespace. Blocks for some 2 ms. VirtError: ENXIO, it is gone;
    EPERM, not allowed.
    """
    try:
        with closing(Ethtool(name)) as ethtool:
            features = ethtool.get_features()
            found = tuple(feature for feature in _BESIDE if feature in features and features.is_active(feature))
            _set(ethtool, found, False)
            return found
    except (EthtoolError, OSError) as refusal:
        raise ethtool_error(refusal, _SENTENCE.format(name)) from refusal


def put_back(name: str, features: Iterable[str]) -> None:
    """Turn on again the features that put_in_frames() returned. VirtError: as in put_in_frames()."""
    try:
        with closing(Ethtool(name)) as ethtool:
            _set(ethtool, features, True)
    except (EthtoolError, OSError) as refusal:
        raise ethtool_error(refusal, _SENTENCE.format(name)) from refusal


def _set(ethtool: Ethtool, names: Iterable[str], on: bool) -> None:
    features = ethtool.get_features()
    for name in names:
        features.set_value(name, on)
    ethtool.set_features(features)
