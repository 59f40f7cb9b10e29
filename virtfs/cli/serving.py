"""One mount from its first moment to its last: attach, serve, end.

The end has an order. First the service ends: every waiting reader has its answer, the taps are gone. Then the
mount leaves the table, and /dev/fuse is closed last: closing it is what `virtfs umount` waits for, and it
answers whoever came in between. Nothing here opens a path in the mount: this process would have to answer
itself.
"""

import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from virtfs.cli.options import MountOptions
from virtfs.daemon.service import serve
from virtfs.fuse.mount import attach, let_go, wait_unmounted
from virtfs.fuse.mounttable import Mounted, mounted_at

log = logging.getLogger(__name__)

GRACE = 5  # seconds that a server which was told twice to end is given


def run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Serve a resolved directory until it is unmounted or a signal comes. ready: called when it answers.

    VirtError: it could not be mounted. Any other: the service failed; the mount is gone all the same.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an interface takes a few
    try:
        trio.run(_run, directory, options, ready)
    except BaseExceptionGroup as group:
        # Every nursery on the way has wrapped it; a single error is told as itself.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


async def _run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    stop, hurry = trio.Event(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, stop, hurry)
        fuse = await trio.to_thread.run_sync(attach, directory)
        mount = mounted_at(directory)
        try:
            if mount is not None:
                nursery.start_soon(_watch, mount, stop)
            with hurry:
                await serve(fuse, options.limits, ready, stop, Path(options.state) if options.state else None)
        finally:
            try:
                if mount is not None:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(let_go, mount)
            finally:
                os.close(fuse)
        nursery.cancel_scope.cancel()
    log.info('"%s" is unmounted', directory)


async def _listen(
    stop: trio.Event, hurry: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal asks to end, the second insists, a third is the kernel's to carry out."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            log.info("%s: ending", signal.Signals(number).name)
            if stop.is_set():
                break
            stop.set()
    hurry.cancel()
    signal.alarm(GRACE)  # what hangs in a thread cannot be cancelled; its default action ends the process


async def _watch(mount: Mounted, stop: trio.Event) -> None:
    await wait_unmounted(mount)
    stop.set()
