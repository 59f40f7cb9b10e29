"""Serve one mount: build its parts bottom-up, run them in one nursery, and shut them down in order."""

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from virtfs import __version__
from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.core.limits import Limits
from virtfs.core.memory import OF_INTERFACES, Kind, Memory
from virtfs.daemon.bridge_follow import BridgeFollower
from virtfs.daemon.bridge_registry import BridgeRegistry
from virtfs.daemon.bridge_texts import BridgeTexts
from virtfs.daemon.bridge_warnings import BridgeWarnings
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.changes import Changes
from virtfs.daemon.commands import Commands
from virtfs.daemon.diagnosis import Diagnosis, log_unexpected_end, on_signal
from virtfs.daemon.drop_checks import DropChecks
from virtfs.daemon.errors_by_user import ErrorsByUser
from virtfs.daemon.failed_lines import FailedLines
from virtfs.daemon.fifos import Fifos
from virtfs.daemon.follow import Follower
from virtfs.daemon.garbage import Garbage, settle
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.lifecycle import Lifecycle
from virtfs.daemon.loan_sockets import LoanSockets
from virtfs.daemon.loans import Loans
from virtfs.daemon.registry import Registry
from virtfs.daemon.reports import Reports
from virtfs.daemon.rights import Rights
from virtfs.daemon.state import State
from virtfs.daemon.statefile import StateFile
from virtfs.daemon.userdb import Accounts
from virtfs.daemon.virt_checks import VirtChecks
from virtfs.daemon.virt_verbs import VirtVerbs
from virtfs.files.capture import Budget, Capture
from virtfs.files.device import Opens
from virtfs.files.events import Events
from virtfs.files.node import ROOT, Directory
from virtfs.files.text import nothing
from virtfs.forward.supervisor import Tasks, supervised
from virtfs.forward.tasks import lasting
from virtfs.fuse import loops, names
from virtfs.fuse.channel import Channel
from virtfs.fuse.idle import Idle
from virtfs.fuse.inodes_handles import Handles, Inodes
from virtfs.fuse.libfuse_pair import SLOW_REPLY, ProtocolTooOld
from virtfs.fuse.protocol import LONGEST_REQUEST
from virtfs.fuse.text_pollers import texts_changed
from virtfs.host.marks import mark_of
from virtfs.host.netns import own_identity

log = logging.getLogger(__name__)

# From asm-generic/socket.h. They work like SO_SNDBUF and SO_RCVBUF, but with CAP_NET_ADMIN the size may exceed
# net.core.wmem_max and rmem_max.
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER = 8 << 20  # size of a socket buffer in bytes
AGAIN = 2  # seconds after which a failed save of the state is retried


class Daemon:
    """The interfaces, bridges and commands of a mount, without /dev/fuse."""

    def __init__(
        self,
        kernel: Kernel,
        fifos: Fifos,
        tasks: Tasks,
        limits: Limits,
        state: StateFile | None,
        directory: str,
        options: str,
        internet: Unit | None = None,
    ) -> None:
        """Make all parts and connect them.

        state: the file that keeps interfaces, bridges and cables for the next mount, or None if nothing is kept.
        directory: the path of the mount point, for the labels of metrics and to find open files.
        options: the mount options that status.json shows.
        internet: the unit of the interface that virtfs shell --net will create, or None.
        """
        self.options = options
        self.kernel = kernel
        self.memory = Memory(limits.memory, limits.user_memory)
        self.fifos = fifos
        self.changes = Changes()
        self.errors = ErrorsByUser(self.changes)
        self.events = Events(Opens(), self.changes.publish, tasks.start)
        self.registry = Registry()
        bridges = BridgeRegistry()
        bridge_texts = BridgeTexts(self.registry, bridges, kernel.mark)
        failed = FailedLines()
        self.bridge_follower = BridgeFollower(kernel, self.registry, bridges, failed, self.events, self.changes)
        self.bridges = Bridges(
            kernel, self.registry, bridges, self.bridge_follower, bridge_texts, self.events, self.errors.report
        )
        self.follower = Follower(kernel, self.registry, self.bridge_follower, self.changes)
        self._drop_checks = DropChecks(self.registry, self.follower, self.events)
        self.cables = Cables(self.events, tasks.start)
        self._garbage = Garbage()
        self.root = Directory(ROOT)
        accounts, lock, application = Accounts(), trio.Lock(), f"virtfs {__version__}"
        pcap = Capture(
            ROOT,
            "pcap",
            Opens(),
            self.registry.recorders,
            Budget(limits.capture, self.memory),
            application,
            tasks.start,
            alone=False,
        )
        self.state = State(
            self.registry,
            bridge_texts,
            self.cables,
            self.follower,
            self.bridge_follower,
            accounts,
            state,
            lock,
            self.events,
            failed,
        )
        self.reports = Reports(
            self.registry,
            bridges,
            self.cables,
            self.follower,
            self.bridge_follower,
            accounts,
            self.state,
            self.changes,
            directory,
            options,
            own_identity()[1],
            limits,
            self.memory,
        )
        self.loans = Loans(kernel, self.registry, self.follower, self.cables.has, fifos.is_read, lock, directory)
        sockets = LoanSockets(fifos.directory, self.registry, self.loans, self.memory, self.errors.report, tasks.start)
        lifecycle = Lifecycle(
            kernel,
            self.registry,
            self.follower,
            self.bridge_follower,
            self.cables,
            fifos,
            self.loans,
            sockets,
            self.events,
            self.root,
            pcap,
            limits,
            lock,
            self.errors.report,
            tasks.start,
            self._garbage,
            internet,
        )
        self.commands = Commands(
            kernel,
            self.registry,
            lifecycle,
            self.bridges,
            BridgeWarnings(kernel, self.registry, bridges),
            self.cables,
            self.follower,
            VirtChecks(limits, accounts),
            VirtVerbs(kernel, self.follower, fifos, self.cables.sockets, accounts, self.events),
            self.state,
            self.reports,
            self.errors,
            self.changes,
            lock,
            tasks.start,
            self.events,
        )
        self.rights = Rights(self.commands, self.errors)
        self.root.add(self.commands.tree.root(__version__, loops.name, self.events, pcap))
        self.root.add({"bridge": self.bridges.directory})
        self.root.fix()

    def run_in(self, tasks: Tasks) -> None:
        """Start the tasks that follow the kernel, look for dropped frames, check rx for readers, and refresh bridges.

        They run until they are cancelled.
        """
        tasks.keep(self.follower.listen, name="listening to rtnetlink")
        tasks.keep(self.follower.clear_doubts, name="checking taps")
        tasks.keep(self._drop_checks.run, name="looking for dropped frames")
        tasks.keep(self.fifos.run, name="checking rx for readers")
        tasks.keep(self.bridge_follower.follow, name="reading the state of bridges")
        tasks.keep(self._garbage.run, name="collecting garbage")


async def serve(
    fuse_fd: int,
    directory: str,
    limits: Limits,
    ready: Callable[[], None],
    stop: trio.Event,
    state: Path | None = None,
    options: str = "",
    internet: Unit | None = None,
) -> None:
    """Serve a FUSE connection until the file system is unmounted or `stop` is set.

    fuse_fd: a descriptor of /dev/fuse for the mount. The caller closes it after this function returns.
    directory: the path of the mount point, for the labels of metrics and to find open files. It is not opened.
    ready: called once, as soon as the mount answers requests.
    state: the path of the file that keeps the text of ctl for the next mount, or None. The interfaces in this file are
    created before any request is answered.
    options: the mount options that status.json shows.
    internet: the unit of the interface that virtfs shell --net will create, or None.

    On return, blocked readers have received ENXIO, and the taps are removed or restored.
    VirtError: EPROTO, the kernel's FUSE is too old; errors from opening the netlink sockets.
    """
    os.set_blocking(fuse_fd, False)
    state_file = StateFile(state) if state else None
    with ExitStack() as closing:
        if state_file is not None:
            closing.callback(state_file.close)
        kernel = Kernel(mark_of(state_file.path) if state_file else "")
        closing.callback(kernel.close)
        async with supervised() as libfuse:
            with ExitStack() as ending:
                async with supervised() as tasks:
                    fifos = Fifos(tasks.start)
                    closing.callback(fifos.remove)
                    daemon = Daemon(kernel, fifos, tasks, limits, state_file, directory, options, internet)
                    mount = _Mount(fuse_fd, daemon)
                    closing.callback(mount.close)
                    settle()
                    libfuse.keep(mount.names, name="answering requests for names and texts")
                    ending.callback(names.end)
                    with on_signal(mount.diagnosis):
                        await mount.run(tasks, ready, stop, state_file)


class _Mount:
    """A daemon behind /dev/fuse: the channel, and libfuse for the requests that the channel does not answer."""

    def __init__(self, fuse_fd: int, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ours, theirs, longest = _pair()
        self._workers = _workers(longest)
        self._serving = trio.CancelScope()
        self._failure: Exception | None = None
        inodes, handles = Inodes(daemon.root), Handles(daemon.memory)
        self._handles = handles
        self._idle = Idle()
        self.diagnosis = Diagnosis(daemon.registry, daemon.state, handles, daemon.options, self._idle)
        report, watch = daemon.errors.report, daemon.kernel.watch
        self._channel = Channel(
            fuse_fd, self._ours, longest, inodes, handles, daemon.follower, report, watch, self._idle
        )
        interrupts = self._channel.pair.interrupts
        names.serve_on(inodes, self._channel.attributes, daemon.rights, interrupts, theirs.detach())

    async def names(self) -> None:
        """Run libfuse until names.end() is called. After a failure, this method may be called again."""
        try:
            await names.run(self._workers)
        except Exception:
            self._channel.pair.give_up()
            raise

    async def run(self, tasks: Tasks, ready: Callable[[], None], stop: trio.Event, state: StateFile | None) -> None:
        """Serve until the connection ends or `stop` is set. Then end the interfaces, and after them the channel."""
        self._daemon.run_in(tasks)
        tasks.keep(self._channel.pair.requests, name="forwarding requests to libfuse")
        tasks.keep(self._channel.pair.replies, name="forwarding the answers of libfuse")
        tasks.start(partial(self._begin, tasks, ready, state), name="starting the mount")
        tasks.start(partial(self._until, stop), name="ending the mount")
        try:
            with self._serving:
                await lasting("answering requests", partial(self._channel.run, tasks.start), ends=ProtocolTooOld)
            if self._failure is not None:
                raise self._failure
        except VirtError:
            raise
        except Exception:
            log_unexpected_end(self.diagnosis)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._end()
                self._check_memory()
            tasks.cancel()

    async def _begin(self, tasks: Tasks, ready: Callable[[], None], state: StateFile | None) -> None:
        """Recreate the saved state, then admit requests. If this fails, the mount fails."""
        try:
            await self._channel.pair.negotiated.wait()
            if state is not None and not await self._daemon.commands.replay.run(await state.load(), state.created):
                return  # the mount is ending
            await self._save_first()
            self._channel.pair.admit()
            tasks.keep(self._follow_changes, name="saving the state")
            ready()
        except Exception as failure:
            self._failure = failure
            self._serving.cancel()

    async def _save_first(self) -> None:
        """Save the state before the mount answers, so that `virtfs mount` can warn of a file that cannot be written.

        _follow_changes() repeats a save that fails, or that a name server delays.
        """
        with trio.move_on_after(AGAIN):
            try:
                await self._daemon.state.keep()
            except Exception:
                log.exception("cannot save the state")

    async def _follow_changes(self) -> None:
        """After each change, wake the pollers of text files, and save changes made by other programs.

        A command saves its own changes before it is answered.
        """
        changes = self._daemon.changes
        while True:
            seen = changes.count
            kept = await self._daemon.state.keep()
            later = await texts_changed(self._handles, self._channel.answers)
            with trio.move_on_after(later if kept else min(later, AGAIN)):
                await changes.after(seen)

    async def _until(self, stop: trio.Event) -> None:
        """End the mount once `stop` is set. The channel still answers requests while the taps are removed."""
        await stop.wait()
        try:
            await self._end(self._daemon.events.end)
        finally:
            self._serving.cancel()

    async def _end(self, answered: Callable[[], Awaitable[None]] = nothing) -> None:
        """End the interfaces, and then every waiting call. answered: called in between, while requests are answered."""
        try:
            await self._daemon.commands.end()
        except Exception:
            log.exception("not all interfaces could be removed")
        await answered()
        self._channel.end()

    def _check_memory(self) -> None:
        """Log memory that is still charged after all interfaces have been destroyed.

        Such memory means that some buffer was not released.
        """
        kinds = OF_INTERFACES if self._handles else tuple(kind for kind in Kind if kind is not Kind.REQUESTS)
        if left := self._daemon.memory.left(kinds):
            log.error("memory is still charged at the end of the mount: %s", left)

    def close(self) -> None:
        """Free libfuse's session and our end of the socket pair."""
        names.close()
        self._ours.close()
        self._channel.close()
        self._idle.close()


def _pair() -> tuple[trio.socket.SocketType, socket.socket, int]:
    """Make the socket pair between the channel and libfuse.

    Return our end, libfuse's end (blocking), and the maximum size of a message in bytes. VirtError: ENOBUFS, the system
    allows only small socket buffers.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        try:
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # in a user namespace, where net.core.wmem_max applies
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    size = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if size < 4 * SLOW_REPLY:
        raise VirtError(errno.ENOBUFS, f"a socket buffer has only {size} bytes: increase net.core.wmem_max")
    # The kernel also charges the buffer for the overhead of a message (net/unix/af_unix.c). So a message may take only
    # half of the buffer.
    return trio.socket.from_stdlib_socket(ours), theirs, min(size // 2, LONGEST_REQUEST)


def _workers(longest: int) -> int:
    """Return the number of requests that libfuse may answer concurrently without filling the socket pair.

    An answer has up to SLOW_REPLY bytes. If the pair were full, libfuse's write would block the only thread, which also
    reads the other end. So the server would hang.
    """
    return max(2, longest // SLOW_REPLY)
