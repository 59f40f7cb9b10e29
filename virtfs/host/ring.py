"""What passes an interface, both ways, as the kernel shows it to tcpdump: a packet socket's ring.

See packet(7), TPACKET_V3, and Documentation/networking/packet_mmap.rst.

The kernel writes each frame, with the time it passed, into the current block of a ring that we share with it, and hands
a block over when it is full or has waited long enough. Nothing is done for a frame here: one wake-up and one look serve
a block. A frame that finds no room is counted.

It sees what goes through the interface's queueing discipline (PACKET_QDISC_BYPASS, packet(7), goes past it), and it
keeps the network namespace alive it is in.
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
from virtfs.host.bpf import SO_ATTACH_FILTER, SO_DETACH_FILTER, Program, sock_fprog, towards_wire_only
from virtfs.host.descriptors import keep_spare
from virtfs.host.tapdevice import Placed

ETH_P_ALL = 3  # linux/if_ether.h

# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_RESERVE = 12
_TPACKET_V3 = 2
_REQ3 = Struct("7I").pack  # block size, blocks, frame size, frames, ms until a block is handed over, 0, 0
_STATISTICS = Struct("3I")  # frames, dropped ones among them, and how often the ring was full
_OWNED_BY_US, _LOSING = 1, 4  # TP_STATUS_USER, TP_STATUS_LOSING
_STATUS, _FRAMES = 2, 3  # where a block says whose it is and how many frames it has, in words of 32 bits;
_DESCRIPTION = Struct("12x3I").unpack_from  # frames, where the first is, and bytes used
_FRAME_SIZE = 2048  # means nothing to TPACKET_V3 but has to divide the block

# A frame begins 82 bytes behind its header, unless there is a reserve: at a multiple of 4 it can be copied by words.
_RESERVE = 2


@dataclass(frozen=True, slots=True)
class Size:
    """How a ring is cut. block: bytes, of pages; a frame is cut to what fits one. wait: ms until a block that is not
    full is handed over.
    """

    block: int
    blocks: int
    wait: int

    @property
    def bytes(self) -> int:
        """Of the kernel's memory."""
        return self.block * self.blocks


@dataclass(frozen=True, slots=True)
class Block:
    """Some frames in a row.

    memory: the whole block; frames begin at `first`, each a struct tpacket3_hdr, a struct sockaddr_ll and the frame.
    used: bytes of it. lost: frames that found no room before these. There may be no frames, only lost ones.
    """

    memory: memoryview
    frames: int
    first: int
    used: int
    lost: int


class PacketRing:
    """One ring on one interface."""

    def __init__(self, listener: socket.socket, size: Size) -> None:
        """Take over a socket; use `PacketRing.open`."""
        self._socket = listener
        self._map = mmap.mmap(listener.fileno(), size.bytes)  # keeps a second descriptor
        whole = memoryview(self._map)
        self._blocks = [whole[at : at + size.block] for at in range(0, size.bytes, size.block)]
        self._words = [block.cast("I") for block in self._blocks]
        whole.release()
        self._at = 0

    @classmethod
    def open(cls, device: Placed, size: Size, program: Program | None = None) -> Self:
        """See what passes from now on. Blocks some 20 ms, for the kernel's RCU.

        program: what is towards the wire has to pass it, as with the tap's own filter. VirtError: EPERM, CAP_NET_RAW
        is missing in the interface's network namespace, or that may not be entered; ENXIO, the interface is gone;
        EAFNOSUPPORT, the kernel has no packet sockets; EMFILE, ENFILE, ENOMEM.
        """
        try:
            return netns.where(device, lambda: cls._open(device, size, program))
        except VirtError:
            raise
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
            listener.setsockopt(_SOL_PACKET, _PACKET_RESERVE, _RESERVE)
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
        """A descriptor that is readable when a block has been handed over, and after an error."""
        return self._socket.fileno()

    def blocks(self) -> Iterator[Block]:
        """The blocks that have been handed over, in order; each is valid until the next is asked for."""
        while self._words[self._at][_STATUS] & _OWNED_BY_US:
            memory, words = self._blocks[self._at], self._words[self._at]
            frames, first, used = _DESCRIPTION(memory, 0)
            yield Block(memory, frames, first, used, self._lost() if words[_STATUS] & _LOSING else 0)
            # After a full ring the kernel opens the block later: till then this would count for the next frames.
            words[_FRAMES] = 0
            words[_STATUS] = 0
            self._at = (self._at + 1) % len(self._blocks)
        if lost := self._lost():
            yield Block(self._blocks[self._at], 0, 0, 0, lost)
        # An error (the interface went down, or is gone) keeps the descriptor readable until somebody has asked for it.
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def ahead(self) -> int:
        """How many more blocks `blocks` has to give until it has given every frame that has passed by now."""
        for number in range(len(self._blocks)):
            at = (self._at + number) % len(self._blocks)
            if not self._words[at][_STATUS] & _OWNED_BY_US:
                return number + bool(_DESCRIPTION(self._blocks[at], 0)[0])
        return len(self._blocks)

    def _lost(self) -> int:
        """Frames lost since it was asked last (the kernel's count starts anew)."""
        return int(_STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[1])

    def set_filter(self, program: Program | None) -> None:
        """What passes towards the wire has to pass it; None: all. VirtError ENOMEM: see `Tap.set_filter`."""
        if program is None:
            with suppress(FileNotFoundError):  # there is none
                self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            return
        fprog, _buffer = sock_fprog(towards_wire_only(program))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        except OSError as refusal:
            raise _refused(refusal) from refusal

    def close(self) -> None:
        """Give it back. Blocks some 20 ms. A second call does nothing."""
        for view in (*self._words, *self._blocks):
            view.release()
        self._words, self._blocks = [], []
        self._map.close()
        self._socket.close()


def _refused(refusal: OSError) -> VirtError:
    match refusal.errno:
        case errno.EPERM | errno.EACCES:
            return VirtError(errno.EPERM, "to capture, CAP_NET_RAW is needed in the tap's network namespace")
        case errno.ENODEV | errno.ENXIO:
            return VirtError(errno.ENXIO, "the tap's interface is gone")
        case errno.EAFNOSUPPORT:
            return VirtError(errno.EAFNOSUPPORT, "to capture, the kernel needs packet sockets (CONFIG_PACKET)")
    return VirtError(refusal.errno or errno.EIO, f"a capture's ring: {refusal.strerror}")
