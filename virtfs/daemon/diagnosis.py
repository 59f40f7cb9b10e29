"""Logs the state of a server when its mount ends unexpectedly, and whenever the server gets SIGUSR2."""

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from types import FrameType

import trio

from virtfs.daemon.registry import Registry
from virtfs.daemon.state import State
from virtfs.daemon.steps import Steps
from virtfs.fuse.idle import Idle
from virtfs.fuse.inodes_handles import Handles

log = logging.getLogger(__name__)

OPENS = 100  # maximum number of open files to list


class Diagnosis:
    """Describes one mount.

    options: the mount options. idle: the Idle of the mount's channel, for its total sleep time.
    """

    def __init__(self, registry: Registry, state: State, handles: Handles, options: str, idle: Idle) -> None:
        self._registry = registry
        self._state = state
        self._handles = handles
        self._options = options
        self.steps = Steps(slept=lambda: idle.slept)

    def lines(self) -> list[str]:
        """Return the options, the text of ctl, counters, open files, the longest steps, all tasks and all threads."""
        return [
            f"options: {self._options or 'none'}",
            *(f"ctl: {line}" for line in self._state.text().splitlines()),
            *self._counters(),
            *self._opens(),
            *self.steps.lines(),
            *_tasks(),
            *_threads(),
        ]

    def _counters(self) -> Iterator[str]:
        for virt in (interface.virt for interface in self._registry):
            counts = [f"{name} {count}" for name, count in asdict(virt.counters).items() if count]
            yield f"{virt.name}: {', '.join(counts) or 'no frames'}"

    def _opens(self) -> Iterator[str]:
        tables = self._handles
        yield f"open files: {len(tables.devices)} waiting, {len(tables.fixed)} fixed, {len(tables.texts)} text"
        for handle in islice((*tables.devices.values(), *tables.fixed.values()), OPENS):
            owner = handle.node.owner
            place = getattr(owner, "name", "")
            yield f"open: {place}/{handle.node.label}, user {handle.user.uid}, process {handle.user.pid}"


def log_unexpected_end(diagnosis: Diagnosis) -> None:
    """Log the state of a mount that ends because of an exception. Call this from the exception's handler."""
    log.critical("the mount is ending unexpectedly", exc_info=True, extra={"lines": diagnosis.lines()})


@contextmanager
def on_signal(diagnosis: Diagnosis) -> Iterator[None]:
    """Log the state of a mount at each SIGUSR2, even if trio's loop is stuck.

    Each SIGUSR2 also starts a new measurement of steps.
    """
    token = trio.lowlevel.current_trio_token()

    def describe(number: int, frame: FrameType | None) -> None:
        # A signal handler interrupts the main thread, which may hold a lock of the log. So the lines are collected
        # here, and another thread logs them.
        lines = diagnosis.lines()
        with suppress(RuntimeError):  # no thread can be started
            threading.Thread(target=_log, args=[lines], daemon=True).start()
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(diagnosis.steps.begin)

    before = signal.signal(signal.SIGUSR2, describe)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _log(lines: list[str]) -> None:
    log.info("SIGUSR2: the state follows", extra={"lines": lines})


def _tasks() -> Iterator[str]:
    """Yield a line for each trio task, indented below its parent, with the place where it waits."""
    root = trio.lowlevel.current_root_task()
    waiting: list[tuple[int, trio.lowlevel.Task]] = [(0, root)] if root else []
    while waiting:
        depth, task = waiting.pop()
        where = [f"{frame.f_code.co_filename}:{line}" for frame, line in task.iter_await_frames()]
        ours = [place for place in where if "/virtfs/" in place]
        yield f"task: {'  ' * depth}{task.name} at {(ours or where or ['its start'])[-1]}"
        waiting += [(depth + 1, child) for nursery in task.child_nurseries for child in nursery.child_tasks]


def _threads() -> Iterator[str]:
    """Yield the stack of each thread."""
    names: dict[int | None, str] = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"thread {names.get(ident, ident)}:"
        for part in traceback.format_stack(frame):
            yield from part.rstrip().split("\n")
