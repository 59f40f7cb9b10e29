"""Run one call in a thread of its own, so that setns(2) or seccomp(2) in it does not affect the calling thread."""

import errno
import threading
from collections.abc import Callable
from typing import TypeVar

from virtfs.core.errors import VirtError

T = TypeVar("T")


def no_thread() -> VirtError:
    """Return the error for a thread that cannot be started (pthread_create(3)). Python's RuntimeError has no errno."""
    return VirtError(errno.ENOMEM, "cannot start a thread: too many processes, or out of memory")


def call_apart(function: Callable[[], T], name: str) -> T:
    """Call a function in a thread of its own; return its result, or raise its exception.

    VirtError ENOMEM: no thread can be started.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as failure:  # re-raised below, in the calling thread
            failures.append(failure)

    thread = threading.Thread(target=run, name=name)
    try:
        thread.start()
    except RuntimeError as refusal:
        raise no_thread() from refusal
    thread.join()
    if failures:
        raise failures.pop()
    return results[0]
