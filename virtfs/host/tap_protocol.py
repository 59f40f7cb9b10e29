"""The methods of a tap, as a Protocol. `Tap` implements it with /dev/net/tun, and `FakeTap` fakes it for tests."""

from typing import Protocol, Self

from virtfs.host.bpf import Program

# Size in bytes of struct virtio_net_hdr (linux/virtio_net.h), which precedes every frame in both directions.
VNET_HEADER = 10
NO_HEADER = bytes(VNET_HEADER)  # the header of a frame that needs no offload: its checksum is filled in

OFFLOAD_NONE = 0
# Flags of TUNSETOFFLOAD (linux/if_tun.h). A kernel before Linux 6.2 refuses OFFLOAD_UDP.
OFFLOAD_TCP = 0x01 | 0x02 | 0x04  # TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
OFFLOAD_UDP = 0x20 | 0x40  # TUN_F_USO4 | TUN_F_USO6
OFFLOAD_ALL = OFFLOAD_TCP | OFFLOAD_UDP


class Placed(Protocol):
    """An interface that reports its current name and namespace, so that it can be found after a rename or move."""

    def name(self) -> str:
        """Return the interface's current name. VirtError ENXIO: the interface is gone."""

    def netns(self) -> int:
        """Return a new descriptor of the interface's network namespace, which the caller must close.

        VirtError ENXIO: the interface is gone.
        """


class TapDevice(Protocol):
    """The far end of a tap: one descriptor with one owner. Frames are read and written without blocking:

    os.readv(fd, [header, room]) reads one frame, header first. The result counts the header and the part of the frame
    that fits in room; the rest of a longer frame is lost. BlockingIOError: no frame is waiting. Any other OSError, or 0
    bytes: the tap is gone.

    os.writev(fd, [NO_HEADER, frame]) sends one frame. OSError EIO: the interface is down.
    """

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""

    @property
    def made(self) -> bool:
        """Whether opening the tap created the interface; False if the interface existed before."""

    def name(self) -> str:
        """Return the interface's current name, even after a rename. VirtError ENXIO: the interface is gone."""

    def alive(self) -> bool:
        """Return whether the interface still exists, in any namespace."""

    def netns(self) -> int:
        """Return a new descriptor of the network namespace of the interface; the caller must close it.

        VirtError ENXIO: the interface is gone, or its namespace is being destroyed.
        """

    def set_carrier(self, on: bool) -> None:
        """Set whether the host sees a carrier."""

    def set_persist(self, on: bool) -> None:
        """Set whether the interface remains when the descriptor is closed."""

    def set_offload(self, flags: int) -> None:
        """Set the offload of frames that the host sends.

        OFFLOAD_NONE: every frame is complete. OFFLOAD_ALL: checksums may be missing, and a frame may hold several TCP
        segments or UDP datagrams. A kernel before Linux 6.2 does not combine UDP datagrams.
        """

    def set_filter(self, program: Program | None) -> None:
        """Set the filter that selects the frames for the reader. None removes it.

        Rejected frames count in the interface's tx_dropped. Frames that are already queued are not checked. Blocks
        for a few ms.
        """

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
