"""The streams of one interface, made together, for they share the wire."""

from collections.abc import Callable
from dataclasses import dataclass

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.virt import Virt
from virtfs.files.capture import Budget, Capture
from virtfs.files.device import Opens
from virtfs.files.frame import Frame
from virtfs.files.hexlines import Hex
from virtfs.files.history import History, HistoryFile
from virtfs.files.inject import Inject
from virtfs.files.node import Symlink
from virtfs.forward.recorder import Recorder, Rings, Task
from virtfs.forward.wire import Wire


@dataclass(frozen=True, slots=True)
class Mount:
    """What the streams need of the mount they are in.

    application: as captures name their maker. captures: what may wait for their readers. rings: where
    their frames come from. start: runs a task as long as the mount. told: what last_error is to say to a user.
    rx: where an interface's FIFO lies.
    """

    application: str
    captures: Budget
    rings: Rings
    start: Callable[[Task], None]
    told: Callable[[VirtError, User], None]
    rx: Callable[[Virt], str]


class Ports:
    """All streams of one interface. opens: who has them open."""

    def __init__(self, wire: Wire, recorder: Recorder, mount: Mount) -> None:
        self.wire = wire
        self.opens = Opens()
        self.frame = Frame(wire, self.opens)
        self.hex = Hex(self.frame, self.opens, mount.told)
        self.pcap = Capture(
            wire.virt,
            "pcap",
            self.opens,
            lambda: [recorder],
            mount.captures,
            mount.application,
            mount.start,
            alone=True,
        )
        self.inject = Inject(wire, self.opens, mount.start, mount.told)
        self.history = History(recorder)
        self.rx = Symlink(wire.virt, mount.rx(wire.virt))
        self.history_file = HistoryFile(wire.virt, self.opens, self.history, mount.application)
