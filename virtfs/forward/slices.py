"""Divides long work into slices, between which other tasks run."""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import ContextVar
from functools import partial
from time import monotonic_ns, thread_time
from types import coroutine
from typing import Any, TypeVar

import trio

# What a task awaits between two slices. The default lets other tasks run. For work on a user's request, the task waits
# for the user's turn instead. Otherwise the task would run a slice whenever the channel lets other tasks run, and would
# use most of the server's time.
give_way: ContextVar[Callable[[], Awaitable[None]]] = ContextVar("give_way", default=trio.lowlevel.checkpoint)

# When the current slice of the task began, in ns; None before its first. All Slices of a task share it: a task that
# first refreshes a state and then makes a text would otherwise work for two slices at a time.
_began: ContextVar[int | None] = ContextVar("_began", default=None)

T = TypeVar("T")

# ns of work after which other tasks run. The last piece of a slice exceeds it, so a piece should take 0.5 ms or less.
SLICE = 1_000_000


class Slices:
    """Divides the work of one task into slices. The task calls pause() between two steps.

    A task that also waits for something else gives way sooner than necessary, because a slice does not end with a wait.

    clock: returns the time in ns.
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self._clock = clock
        if _began.get() is None:
            _began.set(clock())

    async def pause(self) -> None:
        """Let other tasks run if the slice has lasted SLICE ns or longer."""
        began = _began.get()
        if began is None or self._clock() - began >= SLICE:
            await give_way.get()()
            _began.set(self._clock())


async def in_slices(pieces: Iterable[T], slices: Slices | None = None) -> list[T]:
    """Return the pieces of a text as a list. Other tasks may run between two pieces."""
    slices = slices or Slices()
    made = []
    for piece in pieces:
        made.append(piece)
        await slices.pause()
    return made


async def in_steps(work: Generator[None, None, T], slices: Slices | None = None) -> T:
    """Run a generator that yields after each step of its work. Return its result. Other tasks may run between steps."""
    slices = slices or Slices()
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await slices.pause()


@coroutine
def metered(work: Awaitable[T]) -> Generator[Any, Any, tuple[T, float]]:
    """Await some work. Return its result, and the processor time in seconds that its steps took in this thread.

    Elapsed time would include that of other tasks, and that of other programs on a busy machine.
    """
    steps, spent = work.__await__(), 0.0
    resume: Callable[[], Any] = partial(next, steps)
    while True:
        began = thread_time()
        try:
            waits_for = resume()
        except StopIteration as end:
            return end.value, spent + thread_time() - began
        spent += thread_time() - began
        try:
            answer = yield waits_for
        except BaseException as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, answer)
