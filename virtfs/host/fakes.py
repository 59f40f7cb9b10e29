"""A fake tap for tests, made of a socket pair. It needs neither root nor a kernel module."""

import errno
import select
import socket
from typing import Self

from virtfs.core.errors import VirtError
from virtfs.host.bpf import Program
from virtfs.host.netns import own_netns
from virtfs.host.tap_protocol import NO_HEADER, OFFLOAD_NONE, VNET_HEADER


class FakeTap:
    """A TapDevice for tests.

    Like a tap, the SOCK_SEQPACKET sockets keep frame boundaries, truncate a frame that does not fit in the buffer,
    and return EAGAIN when the queue is empty. Two things differ:

    - When the queue is full, the host's end gets EAGAIN and must drop the frame itself.
    - Once the tap is gone, a read returns 0 bytes and a write fails with EPIPE.

    peer: the socket of the host's end. A frame that is sent to this socket, header first, can be read from fd.
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

    # The host's end

    def host_send(self, frame: bytes) -> None:
        """Send a frame from the host's end. BlockingIOError: the queue is full."""
        self.peer.send(NO_HEADER + frame)

    def host_receive(self) -> bytes:
        """Return the next frame that arrives at the host's end. BlockingIOError: no frame is waiting."""
        return self.peer.recv(1 << 17)[VNET_HEADER:]

    def rename(self, name: str) -> None:
        """Rename the interface, as `ip link set tap0 name NAME` does."""
        self._name = name

    def vanish(self) -> None:
        """Delete the interface, as `ip link del tap0` does."""
        self.peer.close()

    # TapDevice

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""
        return self._own.fileno()

    def name(self) -> str:
        """Return the current name. VirtError ENXIO: the tap has vanished or is closed."""
        self._be_there()
        return self._name

    def alive(self) -> bool:
        """Return whether the tap is open and has not vanished."""
        return self.fd >= 0 and not self._poll() & (select.POLLHUP | select.POLLERR)

    def netns(self) -> int:
        """Return a new descriptor of the calling thread's network namespace, which the caller must close."""
        self._be_there()
        return own_netns()

    def set_carrier(self, on: bool) -> None:
        """Store the value in `carrier`."""
        self._be_there()
        self.carrier = on

    def set_persist(self, on: bool) -> None:
        """Store the value in `persist`."""
        self._be_there()
        self.persist = on

    def set_offload(self, flags: int) -> None:
        """Store the value in `offload`."""
        self._be_there()
        self.offload = flags

    def set_filter(self, program: Program | None) -> None:
        """Store the program in `filter`, but do not run it: every frame passes."""
        self._be_there()
        self.filter = program

    def close(self) -> None:
        """Close both ends. A second call does nothing."""
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
