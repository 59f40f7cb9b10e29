"""A thread for one call, where the calling thread must stay as it is: in its network namespace, free of seccomp(2)."""

import errno
import threading
from collections.abc import Callable
from typing import TypeVar

from virtfs.core.errors import VirtError

T = TypeVar("T")


def no_thread() -> VirtError:
    """The refusal where Python says no more than RuntimeError: pthread_create(3) gives no thread."""
    return VirtError(errno.ENOMEM, "the system gives no thread: too many processes, or no memory")


def call_apart(function: Callable[[], T], name: str) -> T:
    """Call a function in a thread of its own that ends with it; return what it returns, or raise what it raises.

    VirtError ENOMEM: the system gives no thread.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as failure:  # carried to the caller below, whatever it is
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
