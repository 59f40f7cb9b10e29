"""The ioctls of tap programs, answered by a frame file as by a tap that lacks every optional feature.

Numbers and layouts: linux/if_tun.h; answers: drivers/net/tun.c, __tun_chr_ioctl. The kernel hands over as many bytes of
the argument as the number's size field says (fs/fuse/ioctl.c), 4 where the structure has 40. Where tun.c takes the
argument itself for an integer (TUNSETOFFLOAD, TUNSETPERSIST, TUNSETOWNER …), the kernel takes that for an address and
answers EFAULT before it asks.
"""

import errno
import struct

from virtfs.core.errors import VirtError

TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
TUNGETSNDBUF = 0x800454D3
TUNSETSNDBUF = 0x400454D4
TUNGETVNETHDRSZ = 0x800454D7
TUNSETVNETHDRSZ = 0x400454D8
TUNGETFILTER = 0x801054DB
TUNSETVNETLE = 0x400454DC
TUNGETVNETLE = 0x800454DD
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

_VNET_HEADER = 10  # sizeof(struct virtio_net_hdr)
_INT_MAX = (1 << 31) - 1
_TUN = range(0x54C8, 0x5500)  # type and number of every ioctl of if_tun.h, and of those to come
# Kept without effect, as by a tap without IFF_VNET_HDR: the least value, and that of a new tap.
_KEPT = {
    (TUNGETSNDBUF, TUNSETSNDBUF): (1, _INT_MAX),
    (TUNGETVNETHDRSZ, TUNSETVNETHDRSZ): (_VNET_HEADER, _VNET_HEADER),
    (TUNGETVNETLE, TUNSETVNETLE): (-_INT_MAX - 1, 0),
}
_GET = {get: new for (get, _), (_, new) in _KEPT.items()}
_SET = {set: (get, least) for (get, set), (least, _) in _KEPT.items()}


class TunIoctls:
    """Those of one descriptor."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}

    def answer(self, command: int, argument: bytes, name: bytes) -> bytes | None:
        """Return what an ioctl gives to the descriptor of the tap `name`; None: it is none of a tap's.

        Errors: EBUSY, TUNSETIFF names another tap; EINVAL, as of a tap, for a bad value and for what it does not have.
        """
        if command in _GET:
            return struct.pack("<i", self._kept.get(command, _GET[command]))
        if command in _SET:
            get, least = _SET[command]
            (value,) = struct.unpack("<i", argument)
            if value < least:
                raise VirtError(errno.EINVAL, f"{value} is less than {least}")
            self._kept[get] = int(bool(value)) if get == TUNGETVNETLE else value
            return b""
        if command == TUNGETFEATURES:
            return struct.pack("<I", IFF_TAP | IFF_NO_PI)
        if command == TUNGETIFF:
            return name[:4].ljust(4, b"\0")
        if command == TUNSETIFF:
            return _attach(argument[:4], name)
        if command == TUNGETFILTER:
            return bytes(16)  # no filter: struct sock_fprog
        if command & 0xFFFF in _TUN:
            raise VirtError(errno.EINVAL, f"ioctl {command:#x}: not on this tap")
        return None


def _attach(asked: bytes, name: bytes) -> bytes:
    """A tap program names its interface: any name's beginning will do that does not speak of another tap."""
    asked = asked.split(b"\0")[0].split(b"%")[0]
    if asked[:3] == b"tap" and not name.startswith(asked):
        raise VirtError(errno.EBUSY, f'this is {name.decode()}, not "{asked.decode(errors="replace")}…"')
    return b""
