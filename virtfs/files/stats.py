"""stats: the counters of all interfaces, one line each.

A thousand lines take 5 ms. So a refresh makes them in slices and lets other tasks run in between.
"""

from collections.abc import Awaitable, Callable, Iterator

import trio

from virtfs.core.ids import User
from virtfs.core.stats import line_of, table
from virtfs.files.node import ROOT
from virtfs.files.text import Text
from virtfs.forward.wire import Wire

SLICE = 64  # lines made before other tasks run


class Stats(Text):
    """The file stats.

    wires: returns the wires of all interfaces, in order. refresh: queries the kernel for its counters.
    changes: as in Text.
    """

    __slots__ = ("_counted", "_lines", "_wires")

    def __init__(
        self, wires: Callable[[], list[Wire]], refresh: Callable[[], Awaitable[None]], changes: Callable[[], int]
    ) -> None:
        super().__init__(ROOT, self._text, refresh=self._renew, changes=changes)
        self._wires = wires
        self._counted = refresh
        self._lines: dict[str, str] = {}

    async def _renew(self) -> None:
        await self._counted()
        lines = {}
        for number, wire in enumerate(self._wires(), start=1):
            lines[wire.virt.name] = line_of(wire.virt)
            if not number % SLICE:
                await trio.lowlevel.checkpoint()
        self._lines = lines

    def _text(self, user: User) -> Iterator[str]:
        """Yield the lines of the last refresh, and a new line for each interface created since then."""
        return table((wire.virt for wire in self._wires()), self._lines)
