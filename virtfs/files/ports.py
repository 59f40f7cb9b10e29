"""The device files of one interface. They share its wire and its recorder."""

from collections.abc import Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.capture import Budget, Capture
from virtfs.files.device import Opens
from virtfs.files.fd import FdLink
from virtfs.files.frame import Frame, Opening, Seats
from virtfs.files.hexlines import Hex
from virtfs.files.history import History, HistoryFile
from virtfs.files.inject import Inject
from virtfs.files.rx import Rx
from virtfs.files.stream import Stream
from virtfs.forward.recorder import Recorder
from virtfs.forward.tasks import Start
from virtfs.forward.wire import Wire


class Ports:
    """All device files of one interface."""

    def __init__(
        self,
        wire: Wire,
        recorder: Recorder,
        *,
        opens: Opens,
        seats: Seats,
        opening: Opening,
        budget: Budget,
        application: str,
        fifo: str,
        followed: Callable[[], None],
        look: Callable[[], None],
        socket: str,
        listen: Callable[[], None],
        report: Callable[[VirtError, User], None],
        start: Start,
    ) -> None:
        """Create the files.

        opens: keeps the open handles of all these files.
        seats: counts the opens of frame, hex and stream. opening: acts on their first open and last close.
        budget: limits the memory of captures. application: the name of the program in captures.
        fifo: the path of the FIFO behind rx. followed: called when a program follows the link rx.
        look: looks whether a program reads rx, so that the wire counts its readers correctly.
        socket: the path of the socket behind fd. listen: creates this socket.
        report: sets a user's last_error.
        start: runs a task until the mount ends.
        """
        self.wire = wire
        self.opens = opens
        self.look = look
        self.frame = Frame(wire, opens, seats, opening)
        self.hex = Hex(self.frame, opens, report)
        self.stream = Stream(self.frame, opens, report)
        self.pcap = Capture(wire.virt, "pcap", opens, lambda: [recorder], budget, application, start, alone=True)
        self.inject = Inject(wire, opens, start, report)
        self.history = History(recorder)
        self.rx = Rx(wire.virt, fifo, seats, followed)
        self.fd = FdLink(wire.virt, socket, listen)
        self.history_file = HistoryFile(wire.virt, opens, self.history, application)
