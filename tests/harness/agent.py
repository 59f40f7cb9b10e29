"""A program that makes calls for a test, each in its own thread. The test controls it through `process.Process`.

harness.forks runs it with two arguments: the descriptor of the connection to the test, and the user ID to change to
(0: remain root).
"""

import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from harness import borrowing, programs, traffic  # noqa: F401  needed for unpickling; another user may be unable to read the file


def main(fd: str, uid: str) -> None:
    """Serve until the test closes its end of the connection."""
    if int(uid):
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    link: Connection[Any, Any] = Connection(int(fd))
    lock = threading.Lock()

    def tell(*what: object) -> None:
        with lock:
            link.send(what)

    def do(number: int, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        tell("begins", number, threading.get_native_id())
        try:
            answer = function(*arguments)
        except OSError as error:
            tell("fails", number, error)
        except Exception as error:
            tell("fails", number, AssertionError(repr(error)))
        else:
            tell("ends", number, answer)

    while True:
        try:
            task = link.recv()
        except (EOFError, ConnectionError):
            os._exit(0)
        threading.Thread(target=do, args=task, daemon=True).start()
