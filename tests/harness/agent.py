"""A program that makes calls for a test, each in a thread of its own: the other side of `process.Process`.

harness.forks runs it with words FD and UID; FD is a Connection's.
"""

import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from harness import programs  # noqa: F401  for unpickling, before the rights to read it are given away


def main(fd: str, uid: str) -> None:
    """Serve until the test closes its end."""
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
