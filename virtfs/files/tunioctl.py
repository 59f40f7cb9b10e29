"""The ioctls of tap programs on a frame file, which answers like a tap without optional features.

Numbers and layouts are from linux/if_tun.h, answers from drivers/net/tun.c __tun_chr_ioctl. FUSE copies as many bytes
of the argument as the size field of the ioctl number says (fs/fuse/ioctl.c): only 4 of the 40 bytes of a struct ifreq.

Some ioctls pass an integer instead of an address (TUNSETOFFLOAD, TUNSETPERSIST, TUNSETOWNER …). FUSE takes it for an
address, and fails with EFAULT without sending a request.
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
_TUN = range(0x54C8, 0x5500)  # type and number of the ioctls in if_tun.h, present and future
# (get, set): (least value, value of a new tap). Stored without effect, as by a tap without IFF_VNET_HDR.
_KEPT = {
    (TUNGETSNDBUF, TUNSETSNDBUF): (1, _INT_MAX),
    (TUNGETVNETHDRSZ, TUNSETVNETHDRSZ): (_VNET_HEADER, _VNET_HEADER),
    (TUNGETVNETLE, TUNSETVNETLE): (-_INT_MAX - 1, 0),
}
_GET = {get: new for (get, _), (_, new) in _KEPT.items()}
_SET = {set: (get, least) for (get, set), (least, _) in _KEPT.items()}


class TunIoctls:
    """The ioctl state of one open file."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}

    def answer(self, command: int, argument: bytes, name: bytes) -> bytes | None:
        """Return the output bytes of an ioctl on the tap `name`, None if it is not an ioctl of if_tun.h.

        VirtError: EBUSY if TUNSETIFF names another tap; EINVAL for a bad value, and for an unsupported ioctl.
        """
        if command in _GET:
            return struct.pack("<i", self._kept.get(command, _GET[command]))
        if command in _SET:
            get, least = _SET[command]
            (value,) = struct.unpack("<i", argument)
            if value < least:
                raise VirtError(errno.EINVAL, f"ioctl {command:#x}: {value} is too small: at least {least}")
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
            raise VirtError(errno.EINVAL, f"ioctl {command:#x} is not supported on this tap")
        return None


def _attach(asked: bytes, name: bytes) -> bytes:
    """Accept TUNSETIFF unless it asks for a tap of another name. `asked` has the first 4 bytes of that name."""
    asked = asked.split(b"\0")[0].split(b"%")[0]
    if asked[:3] == b"tap" and not name.startswith(asked):
        wanted = asked.decode(errors="replace")
        raise VirtError(errno.EBUSY, f'"{wanted}…" cannot be attached here: this file is {name.decode()}')
    return b""
