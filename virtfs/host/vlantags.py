"""Set where the kernel stores the VLAN tag of a frame that the host sends over a tap.

The tag is either in the frame, or beside it (skb->vlan_tci).

A tap claims that its hardware inserts tags (drivers/net/tun.c hw_features). So the tag of a frame from a VLAN interface
or a bridge is beside the frame. The kernel inserts the tag only when the frame is read, after the filter has run.
Measured on Linux 6.18: the filter "vlan" accepts none of these frames, and "ip" accepts all that carry IP. A filter
works as expected only if tags are in the frames.
"""

from collections.abc import Iterable
from contextlib import closing

from pyroute2.ethtool.ioctl import EthtoolError

from virtfs.host.features import Ethtool, ethtool_error

# With one of these features, the kernel leaves a VLAN tag beside the frame.
_BESIDE = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert")  # net/ethtool/common.c, netdev_features_strings
_SENTENCE = 'cannot change the VLAN offload features of "{}"'


def put_in_frames(name: str) -> tuple[str, ...]:
    """Make the host put VLAN tags into the frames. Return the features that this call turned off, for put_back().

    name: the name of the tap in the calling thread's network namespace. Blocks for about 2 ms. VirtError: ENXIO, the
    interface is gone; EPERM, this process lacks the permission.
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
    """Re-enable the features that put_in_frames() returned. VirtError: as in put_in_frames()."""
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
