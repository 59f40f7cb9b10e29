"""Record and restore the settings of a tap that another process can change through a descriptor.

A process that has an attached descriptor needs no privilege for the tap's ioctls (drivers/net/tun.c __tun_chr_ioctl).
"""

import errno
import os
import struct
from dataclasses import dataclass

from virtfs.core.errors import VirtError
from virtfs.host import netns
from virtfs.host.bpf import Program
from virtfs.host.links import Links
from virtfs.host.tap import Tap
from virtfs.host.tap_found import Standing, standing
from virtfs.host.tap_protocol import OFFLOAD_NONE, VNET_HEADER

# linux/if_tun.h, encoded as in asm-generic/ioctl.h
_TUNSETOWNER = 0x400454CC
_TUNSETLINK = 0x400454CD
_TUNSETGROUP = 0x400454CE
_TUNSETTXFILTER = 0x400454D1
_TUNSETSNDBUF = 0x400454D4
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETVNETLE = 0x400454DC
_TUNSETVNETBE = 0x400454DE
_TUNSETSTEERINGEBPF = 0x800454E0
_TUNSETFILTEREBPF = 0x800454E1
_INT = struct.Struct("i")
_INT_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Before:
    """The settings of a tap before another process got it.

    address: its MAC. features: the result of features.wanted().
    """

    address: bytes
    standing: Standing
    features: dict[str, bool]


def before(tap: Tap, links: Links) -> Before:
    """Return the settings that restore() needs. Blocks. VirtError ENXIO: the interface is gone."""
    from virtfs.host import features  # imports a part of pyroute2, which takes 40 ms

    address = links.get(tap).address
    return netns.where(tap, lambda: Before(address, standing(tap.name()), features.wanted(tap.name())))


def restore(tap: Tap, links: Links, was: Before, *, carrier: bool, persist: bool, program: Program | None) -> None:
    """Restore all settings that a holder of the descriptor can change. Blocks for about 10 ms.

    carrier, persist, program: the settings that the tap should have. VirtError: ENXIO, the interface is gone.
    """
    from virtfs.host import features

    tap.tell(_TUNSETVNETHDRSZ, _INT.pack(VNET_HEADER))
    tap.tell(_TUNSETSNDBUF, _INT.pack(_INT_MAX))
    tap.tell(_TUNSETTXFILTER, bytes(_INT.size))  # struct tun_filter: no flags, no addresses
    for request, argument in (
        (_TUNSETVNETLE, 0),
        (_TUNSETVNETBE, 0),
        (_TUNSETSTEERINGEBPF, -1),
        (_TUNSETFILTEREBPF, -1),
    ):
        _try(tap, request, _INT.pack(argument))
    tap.set_filter(program)
    tap.set_offload(OFFLOAD_NONE)
    netns.where(tap, lambda: features.want(tap.name(), was.features))
    tap.set_carrier(carrier)
    now = netns.where(tap, lambda: standing(tap.name()))
    _give(tap, _TUNSETOWNER, was.standing.owner, now.owner, os.geteuid())
    _give(tap, _TUNSETGROUP, was.standing.group, now.group, os.getegid())
    if now.type != was.standing.type:
        _set_type(tap, links, was.standing.type)
    links.set(tap, address=was.address)
    tap.set_persist(persist)


def _try(tap: Tap, request: int, argument: bytes) -> None:
    """Issue an ioctl that some kernels lack, depending on version or configuration. Ignore errors except ENXIO.

    VirtError ENXIO: the interface is gone.
    """
    try:
        tap.tell(request, argument)
    except VirtError as refusal:
        if refusal.errno == errno.ENXIO:
            raise


def _give(tap: Tap, request: int, was: int | None, now: int | None, root: int) -> None:
    """Restore the owner or the group of a tap.

    The kernel cannot remove an owner or a group. If the tap had none, it gets the id `root` instead.
    """
    if now != was:
        tap.tell(request, root if was is None else was)


def _set_type(tap: Tap, links: Links, link_type: int) -> None:
    """Set the link type, which the kernel allows only while the interface is down."""
    was_up = links.get(tap).up
    links.set(tap, up=False)
    try:
        tap.tell(_TUNSETLINK, link_type)
    finally:
        links.set(tap, up=was_up)
