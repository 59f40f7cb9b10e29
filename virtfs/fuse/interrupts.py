"""Cancels changes in the slow plane whose caller gets a signal.

pyfuse3 does not tell an operation the number of its request. But it tells the thread that makes the call, and a thread
waits for one call at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Interrupts:
    """The changes that can be interrupted, by the thread id of the caller, as in fuse_in_header."""

    def __init__(self) -> None:
        self._scopes: dict[int, trio.CancelScope] = {}
        self._early: set[int] = set()

    @contextmanager
    def cancellable(self, thread: int) -> Iterator[trio.CancelScope]:
        """Yield a scope that interrupt() cancels."""
        with trio.CancelScope() as scope:
            self._scopes[thread] = scope
            if thread in self._early:
                scope.cancel()
            try:
                yield scope
            finally:
                if self._scopes.get(thread) is scope:
                    del self._scopes[thread]

    def interrupt(self, thread: int) -> None:
        """Cancel the change of a thread, even if the change has not begun yet.

        thread: 0 stands for any thread of a pid namespace that the server cannot see, so nothing is cancelled.
        """
        if not thread:
            return
        if (scope := self._scopes.get(thread)) is not None:
            scope.cancel()
        else:
            self._early.add(thread)

    def answered(self, thread: int) -> None:
        """Forget an interruption, because the change has been answered."""
        self._early.discard(thread)
