"""The interface of a tap, on one page. `Tap` is the real one, `FakeTap` is for tests."""

from typing import Protocol, Self

from virtfs.host.bpf import Program

VNET_HEADER = 10  # bytes of struct virtio_net_hdr (linux/virtio_net.h), before every frame in both directions
NO_HEADER = bytes(VNET_HEADER)  # the header of a complete frame, with its checksum filled in

OFFLOAD_NONE = 0
OFFLOAD_TCP = 0x01 | 0x02 | 0x04  # TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 (linux/if_tun.h)


class Placed(Protocol):
    """An interface that reports its name and namespace, so that it is found after renames and moves."""

    def name(self) -> str:
        """Return the interface's current name. VirtError ENXIO: it is gone."""

    def netns(self) -> int:
        """Return a new descriptor of its network namespace; the caller closes it. VirtError ENXIO: it is gone."""


class TapDevice(Protocol):
    """The far end of a tap: one descriptor with one owner. Frames are read and written through it, without blocking:

    os.readv(fd, [header, room]) reads one frame, header first. The result counts the header and the part of the frame
    that fits in room; the rest of a longer frame is lost. BlockingIOError: no frame waits. Any other OSError, or 0
    bytes: the tap is gone.

    os.writev(fd, [NO_HEADER, frame]) sends one frame. OSError EIO: the interface is down.
    """

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""

    @property
    def made(self) -> bool:
        """Whether opening created the interface; False if it existed and was attached to."""

    def name(self) -> str:
        """Return the interface's current name, even after a rename. VirtError ENXIO: it is gone."""

    def alive(self) -> bool:
        """Return whether the interface still exists, in whatever namespace."""

    def netns(self) -> int:
        """Return a new descriptor of the network namespace the interface is in; the caller closes it.

        VirtError ENXIO: the interface is gone, or its namespace is being destroyed.
        """

    def set_carrier(self, on: bool) -> None:
        """Turn the carrier on or off, as the host sees it."""

    def set_persist(self, on: bool) -> None:
        """Set whether the interface outlives the descriptor."""

    def set_offload(self, flags: int) -> None:
        """Set the offload of the host's frames.

        OFFLOAD_NONE: every frame is complete. OFFLOAD_TCP: checksums may be missing, and TCP segments may be larger
        than the MTU.
        """

    def set_filter(self, program: Program | None) -> None:
        """Give the reader only the frames that a program accepts; with None, all frames.

        Rejected frames count in the interface's tx_dropped. Frames that wait already are not checked. Blocks for some
        ms.
        """

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
