"""The impairments of one interface, at most one per direction. They can change while frames flow."""

from virtfs.core.impairment import Direction, Impairment
from virtfs.core.memory import Kind
from virtfs.forward.impaired_path import End, ImpairedPath
from virtfs.forward.tasks import Start
from virtfs.forward.wire import Wire


class WireImpairments:
    """The impairments of one wire.

    start: starts a background task, which is cancelled when the mount ends.
    """

    def __init__(self, wire: Wire, start: Start) -> None:
        self._wire = wire
        self._start = start
        self._paths: dict[Direction, ImpairedPath] = {}

    def set(self, direction: Direction, impairment: Impairment) -> None:
        """Set the impairment of one direction. A harmless impairment lets all frames pass unchanged.

        Frames that are already delayed keep their due times. VirtError: EMFILE, ENFILE, ENOMEM. After an
        error, nothing has changed.
        """
        wire, virt = self._wire, self._wire.virt
        path, new = self._paths.get(direction), None
        if path is None and not impairment.harmless:
            end: End = wire if direction == "in" else wire.out
            hold = wire.memory.hold(Kind.DELAYED, lambda: virt.owner)
            new = ImpairedPath(impairment, direction, end, hold)
        virt.set(**{f"impairment_{direction}": impairment})
        if new is not None:
            self._replace(direction, new)
            self._start(new.run, name=f"{virt.name}: impairing {direction}")
        elif path is not None and impairment.harmless:
            path.retire(lambda: self._replace(direction, None))
        elif path is not None:
            path.change(impairment)

    def _replace(self, direction: Direction, path: ImpairedPath | None) -> None:
        old = self._paths.pop(direction, None)
        if path is not None:
            self._paths[direction] = path
        set_path = self._wire.set_path if direction == "in" else self._wire.out.set_path
        set_path(path)
        if old is not None:
            old.stop()
        self._wire.update()

    def stop(self) -> None:
        """End the impairments of both directions. Frames that are still delayed are dropped."""
        for path in self._paths.values():
            path.stop()
