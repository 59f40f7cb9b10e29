"""The sockets behind the files `fd`, in the run-time directory of the mount.

Each file `fd` is a symbolic link to the socket of its interface. The socket is made only when a program follows the
link, because otherwise thousands of interfaces would need thousands of descriptors. At most DOORS sockets exist at a
time. Each further socket replaces the least recently used one.

Each connection has a task. The peer must send its request within PATIENCE seconds. After that, only a peer that gets
the tap stays connected. MOST and EACH limit the number of connections without a tap.
"""

import array
import errno
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid, Unit, User
from virtfs.core.loan import REQUEST, about, parse_request, refusal
from virtfs.core.memory import OPEN, Kind, Memory
from virtfs.core.virt import Virt
from virtfs.daemon.interface import Interface
from virtfs.daemon.loans import Loan, Loans
from virtfs.daemon.registry import Registry
from virtfs.forward.tasks import Start, lasting
from virtfs.forward.wire_out import Given
from virtfs.host.descriptors import keep_spare
from virtfs.host.holders import holding
from virtfs.host.peers import Peer, has_ended, listen, peer_of

log = logging.getLogger(__name__)

DOORS = 64  # maximum number of listening sockets
PATIENCE = 5  # maximum number of seconds to wait for a peer's request
MOST, EACH = 256, 8  # maximum number of connections without a tap: of all users, and of each user except root


class LoanSockets:
    """The sockets behind `fd`.

    directory: the run-time directory. memory: the memory accounts of the mount. report: sets a user's last_error.
    start: runs a task until the mount ends.
    """

    def __init__(
        self,
        directory: Path,
        registry: Registry,
        loans: Loans,
        memory: Memory,
        report: Callable[[VirtError, User], None],
        start: Start,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._loans = loans
        self._memory = memory
        self._report = report
        self._start = start
        self._doors: OrderedDict[Unit, Door] = OrderedDict()
        self._waiting: Counter[Uid] = Counter()

    def path(self, virt: Virt) -> Path:
        """Return the path of the socket of an interface."""
        return self._directory / f"{virt.name}.fd"

    def listen(self, virt: Virt) -> None:
        """Make the socket of an interface, unless it exists. VirtError: it cannot be made."""
        door = self._doors.get(virt.unit)
        if door is not None and door.path.exists():
            self._doors.move_to_end(virt.unit)
            return
        self.close(virt)
        try:
            sock = listen(self.path(virt))
        except VirtError as refusal:
            raise VirtError(refusal.errno, f"{virt.name}/fd: {refusal.strerror}") from refusal
        if len(self._doors) >= DOORS:
            _, oldest = self._doors.popitem(last=False)
            oldest.close()
        door = self._doors[virt.unit] = Door(self.path(virt), sock)
        name = f"{virt.name}: accepting connections to fd"
        self._start(partial(lasting, name, partial(self._accept, door, virt.unit)), name=name)

    def close(self, virt: Virt) -> None:
        """Remove the socket of an interface. Existing connections stay open."""
        if (door := self._doors.pop(virt.unit, None)) is not None:
            door.close()

    async def _accept(self, door: "Door", unit: Unit) -> None:
        with door.scope:
            while True:
                connection, _ = await door.sock.accept()
                interface = self._registry.find(unit)
                try:
                    keep_spare(connection.fileno())
                    peer = peer_of(connection.fileno())
                    if interface is None:
                        raise VirtError(errno.ENXIO, f"virt{unit} is gone")
                    self._admit(peer)
                except OSError as failure:
                    answer = refusal(about(unit, failure))
                    with connection, suppress(OSError):
                        await connection.send(answer)  # does not wait, because the buffer is empty
                    continue
                self._start(
                    partial(self._serve, interface, connection, peer),
                    name=f"{interface.virt.name}: serving fd to process {peer.pid}",
                )

    def _admit(self, peer: Peer) -> None:
        """Count a connection. VirtError EBUSY: the user has too many, or all users together have."""
        if self._waiting.total() >= MOST or (peer.uid != 0 and self._waiting[peer.uid] >= EACH):
            raise VirtError(errno.EBUSY, "too many connections are waiting for an answer: try again later")
        self._waiting[peer.uid] += 1

    def _answered(self, peer: Peer) -> None:
        self._waiting[peer.uid] -= 1
        if not self._waiting[peer.uid]:
            del self._waiting[peer.uid]

    async def _serve(self, interface: Interface, connection: trio.socket.SocketType, peer: Peer) -> None:
        hold = self._memory.hold(Kind.OPENS, peer.uid)
        try:
            with connection, suppress(ConnectionError):
                try:
                    loan = await self._ask(interface, connection, peer, hold.resize)
                finally:
                    self._answered(peer)
                if loan is not None:
                    await self._lend(loan, connection)
        finally:
            hold.release()

    async def _ask(
        self,
        interface: Interface,
        connection: trio.socket.SocketType,
        peer: Peer,
        charge: Callable[[int], None],
    ) -> Loan | None:
        """Receive a request and return the loan. The caller must send the loan's answer.

        Return None if no request arrives in time, or if the request is refused. This function sends the refusal itself.
        """
        data = None
        with trio.move_on_after(PATIENCE):
            data = await connection.recv(REQUEST + 1)
        if not data:
            return None
        try:
            charge(OPEN)
            ended, find = partial(has_ended, connection.fileno()), partial(holding, connection.fileno())
            return await self._loans.give(interface, parse_request(data), peer, ended, find)
        except (OSError, MemoryError) as failure:
            error = about(interface.virt.unit, failure)
            self._report(error, User(peer.uid, peer.gid, peer.pid))
            await connection.send(refusal(error))
            return None

    async def _lend(self, loan: Loan, connection: trio.socket.SocketType) -> None:
        """Send the answer, and wait until the peer closes the connection. Then take the tap back."""
        try:
            with loan.ended:
                await connection.sendmsg([loan.answer], _rights(loan))
                # A holder has nothing to send. If it sends data anyway, the loan ends, so data never accumulate.
                await connection.recv(1)
        finally:
            await self._loans.take_back(loan)


class Door:
    """One listening socket."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self.sock = trio.socket.from_stdlib_socket(sock)
        self.scope = trio.CancelScope()

    def close(self) -> None:
        """Remove the socket."""
        with suppress(OSError):
            self.path.unlink()
        self.scope.cancel()
        self.sock.close()


def _rights(loan: Loan) -> list[tuple[int, int, bytes]]:
    if loan.way is Given.AWAY:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [loan.interface.tap.fd]).tobytes())]
