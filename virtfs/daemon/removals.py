"""Removes the taps of destroyed interfaces, in groups, while further interfaces are being destroyed.

The kernel waits 16 ms for RCU when it removes a tap, and no longer than that when it removes a group of taps
(host.links.Links.delete). So the taps of destroyed interfaces are collected. The kernel takes about as long to remove a
tap as this program takes to destroy its interface. So with many interfaces, a task removes the taps that have been
collected so far, while the script goes on. The next group consists of the taps that have been added meanwhile.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import trio

from virtfs.daemon.kernel import Kernel
from virtfs.forward.tasks import Start
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)

EARLY = 64  # number of collected taps from which on they are removed before finish() is called


class _Removal(NamedTuple):
    name: str
    tap: TapDevice
    deleted: bool


class Removals:
    """The taps that are still to be removed.

    removed: called with the name of each interface whose tap has been removed, in the order of add().
    start: runs a task until the mount ends.
    """

    def __init__(self, kernel: Kernel, removed: Callable[[str], None], start: Start) -> None:
        self._kernel = kernel
        self._removed = removed
        self._start = start
        self._collected: list[_Removal] = []
        self._removing = trio.Lock()
        self._early = False  # whether a task removes taps early

    def __bool__(self) -> bool:
        """Whether finish() has something to do or to wait for."""
        return bool(self._collected) or self._removing.locked()

    def add(self, name: str, tap: TapDevice, deleted: bool) -> None:
        """Add the tap of a destroyed interface. finish() must follow.

        name: the name of the interface. deleted: whether the tap is deleted. If not, it is only closed.
        """
        self._collected.append(_Removal(name, tap, deleted))
        if len(self._collected) >= EARLY and not self._early:
            self._early = True
            self._start(self._remove_early, name="removing taps")

    async def _remove_early(self) -> None:
        try:
            while len(self._collected) >= EARLY:
                await self.finish()
        finally:
            self._early = False

    async def finish(self) -> None:
        """Remove all taps that have been added. On return they are gone, and their units can be used again."""
        if not self:
            return
        with trio.CancelScope(shield=True):
            async with self._removing:
                taps, self._collected = self._collected, []
                await self._remove(taps)

    async def _remove(self, taps: list[_Removal]) -> None:
        doomed = [tap for _name, tap, deleted in taps if deleted]
        try:
            if len(doomed) > 1:
                await self._kernel.delete_taps(doomed)
        except (OSError, MemoryError) as refusal:
            log.warning("cannot remove %d taps together (%s), removing them one by one", len(doomed), refusal)
        finally:
            # Closing a tap that is not persistent removes it, too.
            await self._kernel.close_taps([tap for _name, tap, _deleted in taps if tap.fd >= 0])
            for name, _tap, _deleted in taps:
                self._removed(name)
