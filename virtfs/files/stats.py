"""stats/*: one counter each. stats: the counters of all interfaces, one line each.

A thousand lines of stats take 5 ms. So a refresh makes them in slices and lets other tasks run in between.
"""

from collections.abc import Awaitable, Callable, Iterator

import trio

from virtfs.core.ids import User
from virtfs.core.stats import line_of, table
from virtfs.core.values import counter
from virtfs.core.virt import Virt
from virtfs.files.node import ROOT
from virtfs.files.text import Text
from virtfs.forward.wire import Wire

SLICE = 64  # lines made before other tasks run


class Counter(Text):
    """A file of stats/. refresh: queries the kernel for the interface's counters.

    counted: returns whether virtfs counts these frames itself. If not, each read calls `refresh`: the tap drops frames,
    and virtfs does not see the frames of a program that has borrowed the tap.
    """

    __slots__ = ("_counted",)

    def __init__(
        self, virt: Virt, name: str, refresh: Callable[[], Awaitable[None]], counted: Callable[[], bool]
    ) -> None:
        super().__init__(virt, lambda user: f"{counter(virt, name)}\n", refresh=refresh)
        self._counted = counted

    @property
    def waits(self) -> bool:
        return not self._counted()


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
