"""The offload features of a tap, which both its reader and ethtool(8) control.

TUNSETOFFLOAD sets which features the driver supports, and marks the same features as wanted (drivers/net/tun.c
set_offload). The ioctl alone would turn on features that were turned off with `ethtool -K`. So the wanted features are
read before the ioctl and restored after it. ethtool(8) shows a wanted feature that the driver does not support as "off
[requested on]".
"""

import errno
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice, NotSupportedError

from virtfs.core.errors import VirtError

# The features that TUNSETOFFLOAD sets (drivers/net/tun.c TUN_USER_FEATURES). The last two are new in Linux 6.17.
_USER_FEATURES = (
    "tx-checksum-ip-generic",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
)


class Ethtool(IoctlEthtool):  # type: ignore[misc]  # pyroute2 has no type annotations
    """The ethtool ioctls on one interface of the calling thread's network namespace. The caller must close it."""

    _names: list[str] | None = None  # names of the kernel's features, the same for every interface

    def get_stringset(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return the names of the kernel's features, in the order of their numbers. They are read only once."""
        if Ethtool._names is None:
            Ethtool._names = super().get_stringset(*args, **kwargs)
        return Ethtool._names

    def set_features(self, features: Any) -> None:
        """Set the wanted features.

        If the driver does not support one of them, the kernel returns 2 (ETHTOOL_F_WISH), which is not an error.
        """
        try:
            super().set_features(features)
        except NotSupportedError as answer:
            # pyroute2 raises this exception without arguments if the ioctl returns 2, but with an argument if the ioctl
            # fails with ENOTSUP.
            if answer.args:
                raise


def keep_wanted(name: str, change: Callable[[], None]) -> None:
    """Change which features a tap's driver supports, and then restore the features that were wanted before.

    name: the name of the interface in the calling thread's network namespace. change: the function that calls
    TUNSETOFFLOAD; its errors are passed on. VirtError ENXIO: the interface is gone.
    """
    try:
        with closing(Ethtool(name)) as ethtool:
            before = ethtool.get_features()
            change()
            after = ethtool.get_features()
            for feature in (feature for feature in _USER_FEATURES if feature in after):
                if before.is_requested(feature) != after.is_requested(feature):
                    after.set_value(feature, before.is_requested(feature))
            ethtool.set_features(after)
    except (EthtoolError, OSError) as refusal:
        raise ethtool_error(refusal, f'cannot set the offload features of "{name}"') from refusal


def wanted(name: str) -> dict[str, bool]:
    """Return whether each feature that TUNSETOFFLOAD controls is wanted, as a dict keyed by feature name.

    VirtError ENXIO: the interface is gone.
    """
    try:
        with closing(Ethtool(name)) as ethtool:
            features = ethtool.get_features()
            return {feature: bool(features.is_requested(feature)) for feature in _USER_FEATURES if feature in features}
    except (EthtoolError, OSError) as refusal:
        raise ethtool_error(refusal, f'cannot read the offload features of "{name}"') from refusal


def want(name: str, features: dict[str, bool]) -> None:
    """Set which features are wanted. features: a result of wanted(). VirtError ENXIO: the interface is gone."""
    try:
        with closing(Ethtool(name)) as ethtool:
            after = ethtool.get_features()
            for feature, on in features.items():
                if after.is_requested(feature) != on:
                    after.set_value(feature, on)
            ethtool.set_features(after)
    except (EthtoolError, OSError) as refusal:
        raise ethtool_error(refusal, f'cannot set the offload features of "{name}"') from refusal


def ethtool_error(refusal: Exception, sentence: str) -> VirtError:
    """Return the VirtError for a failed ethtool ioctl.

    sentence: the beginning of the message, which says what failed. The reason is appended.
    """
    if isinstance(refusal, VirtError):
        return refusal
    if isinstance(refusal, NoSuchDevice):
        return VirtError(errno.ENXIO, "the tap's interface is gone")
    number = getattr(refusal, "errno", None) or errno.EOPNOTSUPP
    return VirtError(number, f"{sentence}: {refusal}")
