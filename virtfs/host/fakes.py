"""A tap made of a socket pair: no root, no kernel module, the same contract (`TapDevice`)."""

import errno
import select
import socket
from typing import Self

from virtfs.core.errors import VirtError
from virtfs.host.bpf import Program
from virtfs.host.netns import own_netns
from virtfs.host.tapdevice import NO_HEADER, OFFLOAD_NONE, VNET_HEADER


class FakeTap:
    """SOCK_SEQPACKET keeps the borders, cuts short reads, and is EAGAIN when empty, as a tap is.

    Unlike a tap a full one is EAGAIN to the host's side too, which then has to drop itself; and once gone a
    read gives 0 bytes and a write EPIPE. `peer` is the host's side for tests: what is sent there comes out
    of fd, header included.
    """

    def __init__(self, name: str = "tap0", made: bool = True) -> None:
        self._own, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._own.setblocking(False)
        self.peer.setblocking(False)
        self._name = name
        self.made = made
        self.carrier = True
        self.persist = not made
        self.offload = OFFLOAD_NONE
        self.filter: Program | None = None

    # The host's side, for tests.

    def host_send(self, frame: bytes) -> None:
        """What the host's end sends. BlockingIOError: the queue is full."""
        self.peer.send(NO_HEADER + frame)

    def host_receive(self) -> bytes:
        """What the host's end gets. BlockingIOError: nothing is there."""
        return self.peer.recv(1 << 17)[VNET_HEADER:]

    def rename(self, name: str) -> None:
        """As `ip link set tap0 name NAME`."""
        self._name = name

    def vanish(self) -> None:
        """As `ip link del tap0`."""
        self.peer.close()

    # What a tap offers.

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""
        return self._own.fileno()

    def name(self) -> str:
        """The name it was given last. VirtError ENXIO: it vanished or is closed."""
        self._be_there()
        return self._name

    def alive(self) -> bool:
        """Whether it neither vanished nor is closed."""
        return self.fd >= 0 and not self._poll() & (select.POLLHUP | select.POLLERR)

    def readable(self) -> bool:
        """Whether a frame waits."""
        return self.alive() and bool(self._poll() & select.POLLIN)

    def netns(self) -> int:
        """A new descriptor of the calling thread's own namespace; the caller closes it."""
        self._be_there()
        return own_netns()

    def set_carrier(self, on: bool) -> None:
        """Kept in `carrier`."""
        self._be_there()
        self.carrier = on

    def set_persist(self, on: bool) -> None:
        """Kept in `persist`."""
        self._be_there()
        self.persist = on

    def set_offload(self, flags: int) -> None:
        """Kept in `offload`."""
        self._be_there()
        self.offload = flags

    def set_filter(self, program: Program | None) -> None:
        """Kept in `filter`; every frame passes."""
        self._be_there()
        self.filter = program

    def close(self) -> None:
        """Give both ends back. A second call does nothing."""
        self._own.close()
        self.peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _be_there(self) -> None:
        if not self.alive():
            raise VirtError(errno.ENXIO, "the tap's interface is gone")

    def _poll(self) -> int:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return next((events for _fd, events in poll.poll(0)), 0)
