"""Python's garbage collector, without its long pauses.

A full collection examines all objects. It takes 0.5 ms for each interface, during which the server answers no requests.
Python starts a full collection whenever the number of objects has grown by a quarter. This happens several times while
a script creates interfaces, although creating them makes no garbage. Most garbage is young, and collecting only young
objects takes 1 to 2 ms with the thresholds below. So this module starts a full collection only every WHILE seconds.

Nothing that a user can make in numbers may wait for that: interfaces and open files are freed by reference counting.
Destroying or closing them breaks their reference cycles (Virt.destroy, Wire.close, CaptureHandle.release). So they can
be exempted from collection, which happens each time MANY objects have been made for them, and a full collection
examines only the few objects that are newer.
"""

import gc

import trio

_YOUNG, _MIDDLE, _NEVER = 700, 2, 1_000_000  # see gc.set_threshold()
INTERFACE, FILES = 110, 730  # the number of objects of an interface, and of its files once a program has looked at them
MANY = 2_000
WHILE = 3600  # seconds between two full collections


def settle() -> None:
    """Stop Python from starting full collections. Exempt all current objects from collection, as they are permanent."""
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    gc.freeze()


class Garbage:
    """Decides what the garbage collector examines, and when."""

    def __init__(self) -> None:
        self._new = 0

    def grown(self, objects: int) -> None:
        """Record that objects have been made that reference counting frees. Exempt them from collection now and then.

        objects: roughly how many.
        """
        self._new += objects
        if self._new >= MANY:
            gc.collect(1)  # young garbage must not be exempted
            self._exempt()

    async def run(self) -> None:
        """Collect garbage every WHILE seconds, until cancelled."""
        while True:
            await trio.sleep(WHILE)
            gc.collect()
            self._exempt()

    def _exempt(self) -> None:
        gc.freeze()
        self._new = 0
