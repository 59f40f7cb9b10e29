"""Conditions that tests wait for; nothing here sleeps for its own sake."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE = 10.0  # seconds until what should come at once is given up
_LOOK = 0.005
_READ = {"x86_64": "0", "aarch64": "63", "riscv64": "63"}.get(os.uname().machine, "")


class Stuck(AssertionError):
    """What was asked for did not come: the server, or a program, hangs."""


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Look again and again until it is true."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not true():
        if time.monotonic() > end:
            raise Stuck(f"not within {seconds:g} s: {what}")
        pause.wait(_LOOK)


def waits_in_read(thread: int) -> bool:
    """Whether a thread, or a process' first, waits for the answer to a read(2) on a FUSE file."""
    with suppress(FileNotFoundError, ProcessLookupError):
        where = Path(f"/proc/{thread}/wchan").read_text()
        call = Path(f"/proc/{thread}/syscall").read_text().split()
        return where == "request_wait_answer" and call[0] == (_READ or call[0])
    return False


def until_it_waits(thread: int) -> None:
    """Until a thread waits for a frame."""
    until(lambda: waits_in_read(thread), f"thread {thread} waits in read")
