"""Divides long work into slices, between which other tasks run."""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import ContextVar
from time import monotonic_ns
from typing import TypeVar

import trio

# What a task awaits between two slices. For work on a user's request, it waits until it is the user's turn: a task that
# only let others run would take a slice whenever the channel does so, and most of the server's time.
give_way: ContextVar[Callable[[], Awaitable[None]]] = ContextVar("give_way", default=trio.lowlevel.checkpoint)

T = TypeVar("T")

SLICE = 1_000_000  # ns of work after which other tasks run


class Slices:
    """Measures the work of a task since the last slice. The task calls pause() between two steps of its work.

    clock: returns the time in ns.
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self._clock = clock
        self._began = clock()
        self._worked = 0

    async def pause(self) -> None:
        """Let other tasks run if the slice has lasted SLICE ns or longer."""
        if self._clock() - self._began >= SLICE:
            self._worked = self.worked
            await give_way.get()()
            self._began = self._clock()

    @property
    def worked(self) -> int:
        """The time in ns that the work has taken so far, without the time of other tasks."""
        return self._worked + self._clock() - self._began


async def in_slices(pieces: Iterable[str], slices: Slices | None = None) -> str:
    """Join the pieces of a text. Other tasks may run between two pieces."""
    slices = slices or Slices()
    made = []
    for piece in pieces:
        made.append(piece)
        await slices.pause()
    return "".join(made)


async def in_steps(work: Generator[None, None, T], slices: Slices | None = None) -> T:
    """Return the result of work that stops after each of its steps. Other tasks may run between two steps."""
    slices = slices or Slices()
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await slices.pause()
