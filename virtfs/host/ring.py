"""A capture ring: the frames that pass an interface in both directions, as tcpdump(8) gets them.

The ring belongs to a packet socket with TPACKET_V3; see packet(7) and Documentation/networking/packet_mmap.rst.

The kernel writes each frame with its timestamp into the current block of a ring in shared memory. It hands a block over
to this process when the block is full or its time-out has expired. So one wake-up serves a whole block of frames. The
kernel counts the frames that do not fit in the ring.

The kernel puts a struct virtio_net_hdr before each frame (PACKET_VNET_HDR). If a host has left a checksum to its
network card, the header says where it belongs. On a cable no card fills it in, so core.tpacket does.

The ring gets the frames that pass the queueing discipline of the interface, but not those of a program that bypasses
the queueing discipline (PACKET_QDISC_BYPASS, packet(7)). An open ring keeps the network namespace of its interface
alive.
"""

import errno
import mmap
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import Self

from virtfs.core.errors import VirtError
from virtfs.host import netns
from virtfs.host.bpf import SO_ATTACH_FILTER, SO_DETACH_FILTER, Program, outgoing_only, sock_fprog
from virtfs.host.descriptors import keep_spare
from virtfs.host.tap_protocol import Placed

ETH_P_ALL = 3  # linux/if_ether.h

# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_VNET_HDR = 15
_TPACKET_V3 = 2
# struct tpacket_req3: block size, blocks, frame size, frames, time-out of a block in ms, 0, 0
_REQ3 = Struct("7I").pack
# struct tpacket_stats_v3: frames including dropped ones, dropped frames, times the ring was full
_STATISTICS = Struct("3I")
_OWNED_BY_US, _LOSING = 1, 4  # TP_STATUS_USER, TP_STATUS_LOSING
# The offsets of two fields of a block, in 32-bit words. The status says whether the kernel or this process owns the
# block.
_STATUS, _FRAMES = 2, 3
# Fields of a block: number of frames, offset of the first frame, bytes in use.
_DESCRIPTION = Struct("12x3I").unpack_from
_FRAME_SIZE = 2048  # bytes; TPACKET_V3 ignores the frame size, but it must divide the block size


@dataclass(frozen=True, slots=True)
class Size:
    """The layout of a ring.

    block: the size of a block in bytes, a multiple of the page size; frames that exceed it are truncated. blocks: the
    number of blocks. wait: the time in ms until the kernel hands over a block that is not full.
    """

    block: int
    blocks: int
    wait: int

    @property
    def bytes(self) -> int:
        """The size of the ring in kernel memory, in bytes."""
        return self.block * self.blocks


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive frames from the ring.

    memory: the whole block. frames: the number of frames in it. first: the offset of the first frame. Each frame is a
    struct tpacket3_hdr, a struct sockaddr_ll and the data. used: the number of bytes of the block in use. lost: the
    number of frames that were dropped before these, because the ring was full. A block may report lost frames and
    contain no frames.
    """

    memory: memoryview
    frames: int
    first: int
    used: int
    lost: int


class PacketRing:
    """A ring on one interface."""

    def __init__(self, listener: socket.socket, size: Size) -> None:
        """Take ownership of a socket. To make a ring, call PacketRing.open() instead."""
        self._socket = listener
        # Python's mmap keeps a duplicate of the descriptor, so a ring needs two descriptors.
        self._map = mmap.mmap(listener.fileno(), size.bytes)
        whole = memoryview(self._map)
        self._blocks = [whole[at : at + size.block] for at in range(0, size.bytes, size.block)]
        self._words = [block.cast("I") for block in self._blocks]
        whole.release()
        self._at = 0

    @classmethod
    def open(cls, device: Placed, size: Size, program: Program | None = None) -> Self:
        """Start capturing the frames of an interface.

        Blocks for about 20 ms, because the kernel waits for an RCU grace period. program: the filter that is attached
        to the tap, or None. Only frames sent to the wire are filtered. VirtError: EPERM, CAP_NET_RAW is missing in the
        interface's network namespace, or this process may not enter that namespace; ENXIO, the interface is gone;
        EINVAL, its name is not UTF-8; EAFNOSUPPORT, the kernel has no packet sockets; EMFILE, ENFILE, ENOMEM.
        """
        try:
            return netns.where(device, lambda: cls._open(device, size, program))
        except VirtError:
            raise
        except UnicodeEncodeError:  # from bind(), which takes the name as text
            raise VirtError(
                errno.EINVAL, "the name of the tap is not UTF-8: rename the tap to capture its frames"
            ) from None
        except OSError as refusal:
            raise _refused(refusal) from refusal

    @classmethod
    def _open(cls, device: Placed, size: Size, program: Program | None) -> Self:
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            keep_spare(listener.fileno())
            frames = size.bytes // _FRAME_SIZE
            request = _REQ3(size.block, size.blocks, _FRAME_SIZE, frames, size.wait, 0, 0)
            listener.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            # The header's 10 bytes also move the frame to offset 92, counted from its struct tpacket3_hdr. 92 is a
            # multiple of 4, so the frame can be copied in 32-bit words.
            listener.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            listener.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            ring = cls(listener, size)
        except BaseException:
            listener.close()
            raise
        try:
            ring.set_filter(program)
            listener.bind((device.name(), ETH_P_ALL))
        except BaseException:
            ring.close()
            raise
        return ring

    def fileno(self) -> int:
        """Return a descriptor that is readable when a block has been handed over, and after an error."""
        return self._socket.fileno()

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks that the kernel has handed over, in order. Each is valid until the next one is requested."""
        while self._words[self._at][_STATUS] & _OWNED_BY_US:
            memory, words = self._blocks[self._at], self._words[self._at]
            frames, first, used = _DESCRIPTION(memory, 0)
            yield Block(memory, frames, first, used, self._lost() if words[_STATUS] & _LOSING else 0)
            # If the ring was full, some time passes before the kernel reuses the block. Clear the number of frames, so
            # that ahead() does not count the old frames until then.
            words[_FRAMES] = 0
            words[_STATUS] = 0
            self._at = (self._at + 1) % len(self._blocks)
        if lost := self._lost():
            yield Block(self._blocks[self._at], 0, 0, 0, lost)
        # An error (the interface went down or is gone) keeps the descriptor readable until SO_ERROR is read.
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def ahead(self) -> int:
        """Return the number of non-empty blocks to take from blocks() to get all frames captured before this call.

        The kernel hands over an empty block if the next frame does not fit into it.
        """
        ahead = 0
        for number in range(len(self._blocks)):
            at = (self._at + number) % len(self._blocks)
            ahead += bool(_DESCRIPTION(self._blocks[at], 0)[0])
            if not self._words[at][_STATUS] & _OWNED_BY_US:
                break
        return ahead

    def _lost(self) -> int:
        """Return the number of frames lost since the last call. Reading the kernel's counter resets it."""
        return int(_STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[1])

    def set_filter(self, program: Program | None) -> None:
        """Set the filter for the frames sent to the wire. None removes it.

        Frames from the wire are not filtered. VirtError ENOMEM: see Tap.set_filter().
        """
        if program is None:
            with suppress(FileNotFoundError):  # no filter is attached
                self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            return
        fprog, _buffer = sock_fprog(outgoing_only(program))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        except OSError as refusal:
            raise _refused(refusal) from refusal

    def close(self) -> None:
        """Release the ring and its socket. Blocks for about 20 ms. A second call does nothing."""
        for view in (*self._words, *self._blocks):
            view.release()
        self._words, self._blocks = [], []
        self._map.close()
        self._socket.close()


def _refused(refusal: OSError) -> VirtError:
    match refusal.errno:
        case errno.EPERM | errno.EACCES:
            return VirtError(errno.EPERM, "capturing needs CAP_NET_RAW in the tap's network namespace")
        case errno.ENODEV | errno.ENXIO:
            return VirtError(errno.ENXIO, "the tap's interface is gone")
        case errno.EAFNOSUPPORT:
            return VirtError(errno.EAFNOSUPPORT, "capturing needs a kernel with packet sockets (CONFIG_PACKET)")
    return VirtError(refusal.errno or errno.EIO, f"cannot set up a capture ring: {refusal.strerror}")
