"""wait/*: a read waits until a condition is true and returns "1\\n". The next read returns end of file."""

import errno
import select
from collections.abc import Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.virt import Virt
from virtfs.files.device import DeviceFile, Opens, TextDeviceHandle, Waiters
from virtfs.files.frame import Seats
from virtfs.files.node import Rights
from virtfs.forward.wire import Wire


class Wait(DeviceFile):
    """A file that waits for a condition of an interface.

    holds: returns whether the condition is true.
    look_first: called when a read or a poll(2) begins to wait; brings the state behind the condition up to date.
    came: the number of times that the condition has become true. A waiting read compares this number with its
    value at the start of the read, because the condition may be false again before the read is served.

    Once the interface is gone, a read fails with ENXIO unless the condition is true.
    """

    __slots__ = ("_held", "came", "holds", "look_first", "virt", "waiters")

    def __init__(
        self,
        virt: Virt,
        label: str,
        opens: Opens,
        holds: Callable[[], bool],
        waiters: Waiters,
        look_first: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(virt, f"wait/{label}", opens, Rights.REPORT)
        self.virt = virt
        self.holds = holds
        self.look_first = look_first
        self.came = 0
        self._held = holds()
        self.waiters = waiters

    def look(self) -> bool:
        """Evaluate the condition and return whether it has changed since the last call."""
        before, self._held = self._held, self.holds()
        self.came += self._held > before
        return self._held != before

    def open(self, flags: int, user: User) -> "WaitHandle":
        return WaitHandle(self, user)


class WaitHandle(TextDeviceHandle):
    """One open of a wait file."""

    __slots__ = ("_done", "_seen", "_wait")

    def __init__(self, wait: Wait, user: User) -> None:
        super().__init__(wait, user, wait.waiters)
        self._wait = wait
        self._done = False
        self._seen: int | None = None  # the value of Wait.came when the wait began

    def more(self) -> bytes | None:
        if self._done:
            return b""
        if self._holds():
            self._done = True
            return b"1\n"
        if self._wait.virt.lost:
            raise VirtError(errno.ENXIO, f"{self._wait.virt.name} is gone")
        return None

    def _holds(self) -> bool:
        """Return whether the condition is true, or has been true since this method was first called."""
        if self._seen is None:
            self._wait.look_first()
            self._seen = self._wait.came
        return self._wait.holds() or self._wait.came != self._seen

    def ready(self) -> bool:
        return self._done or self._holds()

    def poll(self) -> int:
        if not (events := super().poll()) and self._wait.virt.lost:
            return select.POLLIN | select.POLLERR | select.POLLHUP
        return events


class FrameWait(Wait):
    """wait/frame: waits for a frame that arrives after the open."""

    __slots__ = ("wire",)

    def __init__(self, wire: Wire, opens: Opens) -> None:
        super().__init__(wire.virt, "frame", opens, wire.waiting, Waiters(started=wire.want))
        self.wire = wire
        wire.listeners.append(self.waiters.wake)

    def open(self, flags: int, user: User) -> WaitHandle:
        self.wire.settle()
        return super().open(flags, user)


def waits(wire: Wire, opens: Opens, seats: Seats, look: Callable[[], None]) -> dict[str, Wait]:
    """Return the files in the directory wait/ of one interface, by name.

    look: looks whether a program reads rx. Without it, a reader that has just gone would end a wait for the next one.
    """

    def has_reader() -> bool:
        """Return whether a program can read. A holder of the tap counts until it ends, even if virtfs has not noticed.

        The next program gets the tap only after that, so a wait for this program must not return before.
        """
        ended = seats.holder is not None and seats.holder.ended()
        return wire.readers - ended > wire.coming

    virt = wire.virt
    conditions: dict[str, Callable[[], bool]] = {
        "up": lambda: virt.host.up,
        "down": lambda: not virt.host.up and not virt.lost,
        "carrier": lambda: virt.host.carrier,
        "reader": has_reader,
        "gone": lambda: virt.lost,
    }
    state = Waiters()
    files = {
        name: Wait(virt, name, opens, holds, state, look if name == "reader" else lambda: None)
        for name, holds in conditions.items()
    }

    def listen() -> None:
        """Wake the waiting reads if a condition has changed or the interface is gone."""
        looks = [file.look() for file in files.values()]
        if any(looks) or virt.lost:
            state.wake()

    wire.changed.append(listen)
    return {**files, "frame": FrameWait(wire, opens)}
