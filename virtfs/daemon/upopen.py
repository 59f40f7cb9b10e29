"""The verbs `upopen` and `carrier`.

With `upopen` the host's end is up only while frame, hex or stream is open. With `carrier open` the host's end has a
carrier only while one of these files is open; with `carrier off` it never has one.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from virtfs.core.virt import Virt
from virtfs.daemon.kernel import Kernel
from virtfs.files.frame import Seats
from virtfs.forward.tasks import Start
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)


class HostFollowsOpens:
    """Brings the host's end up or down, and switches its carrier, when `frame`, `hex` or `stream` is opened or closed.

    Implements files.frame.Opening. seats: counts the opens.
    look: queries the state of the host's end after a change.
    lock: held while interfaces change.
    start: runs a task until the mount ends.
    """

    def __init__(
        self,
        virt: Virt,
        tap: TapDevice,
        seats: Seats,
        kernel: Kernel,
        look: Callable[[], Awaitable[None]],
        lock: trio.Lock,
        start: Start,
    ) -> None:
        self._virt = virt
        self._tap = tap
        self._seats = seats
        self._kernel = kernel
        self._look = look
        self._lock = lock
        self._start = start
        self._carrier = True

    @property
    def carrier(self) -> bool:
        """The carrier state that virtfs last set."""
        return self._carrier

    async def first_open(self) -> None:
        """Update the host's end before the first open is answered. If the kernel refuses the update, the open fails.

        Cancellation ends the wait for the lock. An update that has begun completes.
        """
        async with self._lock:
            with trio.CancelScope(shield=True):
                await self.follow()

    def last_close(self) -> None:
        """Start a task that updates the host's end after the last close. No caller waits, so the task logs errors."""
        self._start(self._after_last_close, name=f"{self._virt.name}: updating the host's end after the last close")

    async def _after_last_close(self) -> None:
        try:
            await self.first_open()
        except OSError as refusal:
            log.warning("%s: cannot update the host's end after the last close: %s", self._virt.name, refusal.strerror)

    async def follow(self) -> None:
        """Set the host's end up or down, and switch its carrier, depending on whether a file is open.

        For a lost interface, do nothing. The caller holds the lock.
        """
        virt, is_open = self._virt, not self._seats.empty()
        if virt.lost:
            return
        carrier = virt.carrier == "always" or (is_open and virt.carrier == "open")
        if carrier != self._carrier:
            await self._kernel.call(self._tap.set_carrier, carrier)
            self._carrier = carrier
        if virt.upopen and virt.host.up != is_open:
            await self._kernel.call(partial(self._kernel.links.set, self._tap, up=is_open))
        await self._look()
