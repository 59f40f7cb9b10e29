"""Helpers for calls of the API in the test's own process: in a thread, and calls that fail."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import pytest
from harness.waiting import PATIENCE, Stuck, polls, until, waits_in_read

T = TypeVar("T")


class Waiting(Generic[T]):
    """A call that has started in a thread. thread: the kernel's ID of the thread."""

    def __init__(self, function: Callable[..., T], *arguments: object, **named: object) -> None:
        self._function = function
        self._arguments = arguments
        self._named = named
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self._runner = threading.Thread(target=self._run, daemon=True)
        self._runner.start()
        assert self._runner.native_id is not None
        self.thread = self._runner.native_id

    def _run(self) -> None:
        try:
            self._results.append(self._function(*self._arguments, **self._named))
        except BaseException as error:
            self._errors.append(error)

    def asleep(self) -> "Waiting[T]":
        """Wait until the call waits in read(2) or poll(2), and return itself."""
        until(lambda: waits_in_read(self.thread) or polls(self.thread), f"{self._function} waits")
        return self

    def result(self, seconds: float = PATIENCE) -> T:
        """Return the result of the call, or raise its error. Stuck: it has not ended."""
        self._runner.join(seconds)
        if self._runner.is_alive():
            raise Stuck(f"{self._function} has not returned")
        for error in self._errors:
            raise error
        return self._results[0]


def fails(number: int, pattern: str = "") -> "pytest.RaisesExc[OSError]":
    """Return a context whose body must fail with an OSError of this errno, whose text matches the pattern."""
    return pytest.raises(OSError, match=rf"^\[Errno {number}\] .*{pattern}")
