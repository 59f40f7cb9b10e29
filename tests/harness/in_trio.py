"""Runs async tests with trio."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

import trio

from harness.waiting import PATIENCE
from virtfs.forward.tasks import Start, Task

P = ParamSpec("P")


def in_trio(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test with trio. If it fails, raise its own exception without the exception groups of nurseries."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            with trio.fail_after(2 * PATIENCE):
                await test(*args, **kwargs)

        try:
            trio.run(main)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    return run


async def until(true: Callable[[], object]) -> None:
    """Let other tasks run until a condition is true. Only the test's time limit ends the wait otherwise."""
    while not true():
        await trio.lowlevel.checkpoint()


def start_in(nursery: trio.Nursery) -> Start:
    """Return a function that starts tasks as forward.supervisor.Tasks does, but whose failures fail the test."""

    def start(work: Task, /, *, name: str) -> None:
        nursery.start_soon(work, name=name)

    return start


def forget(task: Task, /, *, name: str) -> None:
    """Start nothing. This is the Start of an object whose tasks a test does not need."""
