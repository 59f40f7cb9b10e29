"""What a tap offers to the rest of virtfs, on one page. `Tap` is the real one, `FakeTap` is for tests."""

from typing import Protocol, Self

from virtfs.host.bpf import Program

VNET_HEADER = 10  # struct virtio_net_hdr (linux/virtio_net.h), in front of every frame, both ways
NO_HEADER = bytes(VNET_HEADER)  # a whole frame, its checksum done: what is written in front of one

OFFLOAD_NONE = 0
OFFLOAD_TCP = 0x01 | 0x02 | 0x04  # TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 (linux/if_tun.h)


class Placed(Protocol):
    """An interface that can say where it is, so that it is found there whatever became of its name."""

    def name(self) -> str:
        """The interface's present name. VirtError ENXIO: it is gone."""

    def netns(self) -> int:
        """A new descriptor of the network namespace it is in; the caller closes it. VirtError ENXIO: it is gone."""


class TapDevice(Protocol):
    """One descriptor, one owner. Frames go straight through it, without blocking:

    os.readv(fd, [header, room]) takes one frame, header first. The answer counts header and frame, and only
    what fitted: a frame longer than room loses its tail. BlockingIOError: none is there. Any other OSError,
    or 0 bytes: the tap is gone. os.writev(fd, [NO_HEADER, frame]) sends one frame whole; OSError EIO: the
    interface is down.
    """

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""

    @property
    def made(self) -> bool:
        """Whether opening created the interface; False: it was there before and was attached to."""

    def name(self) -> str:
        """The interface's present name, also after a rename. VirtError ENXIO: it is gone."""

    def alive(self) -> bool:
        """Whether the interface still exists, in whatever namespace."""

    def readable(self) -> bool:
        """Whether a frame waits."""

    def netns(self) -> int:
        """A new descriptor of the network namespace the interface is in; the caller closes it.

        VirtError ENXIO: the interface is gone, or its namespace is about to go.
        """

    def set_carrier(self, on: bool) -> None:
        """Plug the cable in or pull it out, as the host sees it."""

    def set_persist(self, on: bool) -> None:
        """Whether the interface outlives the descriptor."""

    def set_offload(self, flags: int) -> None:
        """What the host may leave undone in frames it sends: OFFLOAD_NONE or OFFLOAD_TCP."""

    def set_filter(self, program: Program | None) -> None:
        """Let only frames pass to the reader that a program accepts, the others count in the interface's
        tx_dropped; None: all. Frames that wait already are not asked again. Blocks for some ms.
        """

    def close(self) -> None:
        """Give the descriptor back. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
