"""The ioctls of a frame file, for programs that were written for taps.

The frame file answers like a tap without optional features.

Numbers and layouts are from linux/if_tun.h, answers from drivers/net/tun.c __tun_chr_ioctl. FUSE copies as many bytes
of the argument as the size field of the ioctl number says (fs/fuse/ioctl.c). If the argument is a struct ifreq, this
field says 4, so only the first 4 of its 40 bytes are copied.

Some ioctls pass an integer instead of an address (TUNSETOFFLOAD, TUNSETPERSIST, TUNSETOWNER …). FUSE treats the
integer as an address, so these ioctls fail with EFAULT before a request reaches virtfs.
"""

import errno
import struct

from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError

TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
TUNGETSNDBUF = 0x800454D3
TUNSETSNDBUF = 0x400454D4
TUNGETVNETHDRSZ = 0x800454D7
TUNSETVNETHDRSZ = 0x400454D8
TUNGETFILTER = 0x801054DB
TUNDETACHFILTER = 0x401054D6
TUNSETTXFILTER = 0x400454D1
TUNSETVNETLE = 0x400454DC
TUNGETVNETLE = 0x800454DD
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000

_VNET_HEADER = 10  # sizeof(struct virtio_net_hdr)
_INT_MAX = (1 << 31) - 1
_INT = struct.Struct("<i")
# The low 16 bits (type and number) of the ioctls in if_tun.h, with space for future ones.
_TUN = range(0x54C8, 0x5500)
# Integers that one ioctl sets and another returns. They have no other effect, as on a tap without IFF_VNET_HDR.
# Each key is a pair of ioctls (get, set). Each value is a pair of integers (minimum, initial value).
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
        """Return the output bytes of an ioctl on the tap `name`, or None if `command` is not an ioctl of if_tun.h.

        VirtError: EBUSY, TUNSETIFF names another tap; EINVAL, the value is too small or the ioctl is not supported.
        """
        if command in _GET:
            return _INT.pack(self._kept.get(command, _GET[command]))
        if command in _SET:
            get, least = _SET[command]
            if len(argument) != _INT.size:
                raise VirtError(errno.EINVAL, f"ioctl {command:#x}: the argument is not 4 bytes long")
            (value,) = _INT.unpack(argument)
            if value < least:
                raise VirtError(errno.EINVAL, f"ioctl {command:#x}: {value} is too small: the minimum is {least}")
            self._kept[get] = int(bool(value)) if get == TUNGETVNETLE else value
            return b""
        if command == TUNGETFEATURES:
            return struct.pack("<I", IFF_TAP | IFF_NO_PI)
        if command == TUNGETIFF:
            return name[:4].ljust(4, b"\0")
        if command == TUNSETIFF:
            return _attach(argument[:4], name)
        if command == TUNGETFILTER:
            return bytes(16)  # an empty struct sock_fprog: the tap has no filter
        if command == TUNDETACHFILTER or (command == TUNSETTXFILTER and argument[2:4] == bytes(2)):
            # struct tun_filter begins with two 16-bit numbers, the flags and the number of addresses. A filter without
            # addresses accepts every frame (drivers/net/tun.c update_filter).
            return b""
        if command & 0xFFFF in _TUN:
            raise VirtError(errno.EINVAL, f"ioctl {command:#x} is not supported on this tap")
        return None


def _attach(asked: bytes, name: bytes) -> bytes:
    """Accept TUNSETIFF, or raise VirtError EBUSY if it asks for another tap.

    asked: the first 4 bytes of the interface name in the argument. name: the name of this tap.
    """
    asked = asked.split(b"\0")[0].split(b"%")[0]
    if asked[:3] == b"tap" and not name.startswith(asked):
        wanted = to_text(asked)
        raise VirtError(errno.EBUSY, f'"{wanted}…" cannot be attached here: this is the frame file of {to_text(name)}')
    return b""
