"""Starts tasks that outlive the command or request that needs them."""

import logging

import trio

from virtfs.forward.tasks import Task

log = logging.getLogger(__name__)


class Tasks:
    """Starts the tasks of a mount in its nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, work: Task) -> None:
        """Start a task, which is cancelled when the mount ends. An exception ends only this task and is logged."""

        async def guarded() -> None:
            try:
                await work()
            except Exception:
                log.exception("a task has failed")

        self._nursery.start_soon(guarded)
