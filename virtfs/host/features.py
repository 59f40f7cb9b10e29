"""A tap's offload features, which its reader and ethtool(8) both have a say in.

TUNSETOFFLOAD sets what the driver can do and, in the same go, what is wanted (drivers/net/tun.c set_offload): a feature
turned off with `ethtool -K` would come back. So the wanted features are read before the call and restored after it.
A feature that is wanted while the driver cannot do it shows as "off [requested on]".
"""

import errno
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice, NotSupportedError

from virtfs.core.errors import VirtError

_DRIVERS = (  # drivers/net/tun.c TUN_USER_FEATURES, what TUNSETOFFLOAD sets; the last two since Linux 6.17
    "tx-checksum-ip-generic",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
)


class Ethtool(IoctlEthtool):  # type: ignore[misc]  # pyroute2 has no types here
    """An interface of the calling thread's network namespace. To be closed."""

    _names: list[str] | None = None  # of the features: the kernel's, so they are asked for once

    def get_stringset(self, *args: Any, **kwargs: Any) -> list[str]:
        """Return the names of the features, by their numbers."""
        if Ethtool._names is None:
            Ethtool._names = super().get_stringset(*args, **kwargs)
        return Ethtool._names

    def set_features(self, features: Any) -> None:
        """Want those features. The driver may not allow them: then the kernel answers 2, ETHTOOL_F_WISH."""
        try:
            super().set_features(features)
        except NotSupportedError as answer:
            if answer.args:  # an errno, and no such answer
                raise


def keep_wanted(name: str, change: Callable[[], None]) -> None:
    """Change what a tap's driver can do, but not which features are wanted.

    name: of the interface, in the calling thread's network namespace. change: does the TUNSETOFFLOAD.
    VirtError: ENXIO, the interface is gone; what `change` raises.
    """
    try:
        with closing(Ethtool(name)) as ethtool:  # a socket, which may be one too many
            before = ethtool.get_features()
            change()
            after = ethtool.get_features()
            for feature in (feature for feature in _DRIVERS if feature in after):
                if before.is_requested(feature) != after.is_requested(feature):
                    after.set_value(feature, before.is_requested(feature))
            ethtool.set_features(after)
    except (EthtoolError, OSError) as refusal:
        raise told(name, refusal, "have its offload set") from refusal


def told(name: str, refusal: Exception, what: str) -> VirtError:
    """Return what ethtool's refusal means to whoever wanted something of an interface."""
    if isinstance(refusal, VirtError):
        return refusal
    if isinstance(refusal, NoSuchDevice):
        return VirtError(errno.ENXIO, "the tap's interface is gone")
    number = getattr(refusal, "errno", None) or errno.EOPNOTSUPP
    return VirtError(number, f'"{name}" does not {what}: {refusal}')
