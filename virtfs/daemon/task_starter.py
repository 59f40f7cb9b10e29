"""Starts the tasks that run beside the command or the request that started them."""

import logging

import trio

from virtfs.forward.tasks import Task

log = logging.getLogger(__name__)


class Tasks:
    """The tasks of a mount. They end with its nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start(self, work: Task) -> None:
        """Run a task until the mount ends. An exception ends only this task and is logged."""

        async def guarded() -> None:
            try:
                await work()
            except Exception:
                log.exception("a task has failed")

        self._nursery.start_soon(guarded)
