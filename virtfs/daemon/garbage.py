"""Python's garbage collector, without its long pauses.

A collection of all objects takes 0.5 ms for each interface, and nobody is served meanwhile. Python starts one whenever
the number of objects has grown by a quarter: several while a script creates interfaces, although creating makes no
garbage. Most garbage is young, and young objects are collected in about two milliseconds. So all objects are collected
only when an interface is created after many have been destroyed, and once in a while for the rest.
"""

import gc

import trio

_YOUNG, _MIDDLE, _NEVER = 700, 5, 1_000_000  # see gc.set_threshold()
MANY = 64  # destroyed interfaces
WHILE = 3600  # seconds


def settle() -> None:
    """Leave the collection of old objects to this module, and spare those that exist now, which live until the end."""
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    gc.freeze()


class Garbage:
    """Decides when to collect all objects."""

    def __init__(self) -> None:
        self._destroyed = 0

    def destroyed(self) -> None:
        """Count a destroyed interface. This does not collect, so that many can be destroyed in a short time."""
        self._destroyed += 1

    def made(self, number: int) -> None:
        """Record a new interface. Collect if many were destroyed, compared with the number that exists."""
        if self._destroyed >= max(MANY, number // 4):
            self._destroyed = 0
            gc.collect()

    async def run(self) -> None:
        """Collect every WHILE seconds, until cancelled."""
        while True:
            await trio.sleep(WHILE)
            gc.collect()
