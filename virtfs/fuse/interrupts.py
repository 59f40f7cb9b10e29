"""Cancel a change in the slow plane if its caller gets a signal.

pyfuse3 passes the id of the calling thread to an operation, but not the number of the request. The id is sufficient,
because a thread waits for one call at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Interrupts:
    """The changes that can be interrupted, keyed by the thread id of the caller (`pid` in fuse_in_header)."""

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
        """Cancel the change that a thread has requested, even if the change has not begun yet.

        thread: 0 stands for every thread in a pid namespace that the server cannot see, so nothing is cancelled for 0.
        """
        if not thread:
            return
        if (scope := self._scopes.get(thread)) is not None:
            scope.cancel()
        else:
            self._early.add(thread)

    def answered(self, thread: int) -> None:
        """Forget a pending interruption of a thread's change. Called when the change has been answered."""
        self._early.discard(thread)
