"""One mount from its first moment to its last: attach, serve, end.

The end has an order. First the service ends: every waiting reader has its answer, the taps are gone. Then the
mount leaves the table, and /dev/fuse is closed last: closing it is what `virtfs umount` waits for, and it
answers whoever came in between. Nothing here opens a path in the mount: this process would have to answer
itself.
"""

import errno
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from virtfs.cli.options import MountOptions
from virtfs.cli.signals import unless_ignored
from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.daemon.service import serve
from virtfs.forward.tasks import lasting, only, surely_in_thread
from virtfs.fuse.mount import attach, let_go, wait_unmounted
from virtfs.fuse.mounttable import Mounted, mounted_at
from virtfs.host import descriptors

log = logging.getLogger(__name__)

GRACE = 5  # seconds that a server which was told twice to end is given


def run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Serve a resolved directory until it is unmounted or a signal comes. ready: called when it answers.

    VirtError: it could not be mounted. Any other: the service failed; the mount is gone all the same.
    """
    options = replace(options, limits=within(options.limits, descriptors.raise_limit()))
    try:
        trio.run(_run, directory, options, ready)
    except BaseExceptionGroup as group:
        raise only(group) from None


def within(limits: Limits, files: int) -> Limits:
    """What a server that may have so many files open can keep to; what had to be lowered is logged.

    VirtError EMFILE: not even one interface.
    """
    most = descriptors.interfaces(files)
    if not most:
        raise VirtError(errno.EMFILE, f"{files} open files (RLIMIT_NOFILE) are not enough for one interface")
    if most >= limits.virts:
        return limits
    log.warning("max_virts is %d, not %d: %d files may be open (RLIMIT_NOFILE)", most, limits.virts, files)
    return replace(limits, virts=most)


async def _run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    stop, hurry = trio.Event(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, stop, hurry)
        flags = [flag for flag, on in options.flags if on]
        fuse = await trio.to_thread.run_sync(attach, directory, options.source or "virtfs", flags)
        mount = mounted_at(directory)
        try:
            if mount is not None:
                nursery.start_soon(lasting, "following the table of mounts", partial(_watch, mount, stop))
            with hurry:
                state = Path(options.state) if options.state else None
                await serve(fuse, options.limits, ready, stop, state, options.text())
        finally:
            try:
                if mount is not None:
                    with trio.CancelScope(shield=True):
                        await surely_in_thread(partial(let_go, mount), trio.CapacityLimiter(1))
            finally:
                os.close(fuse)
        nursery.cancel_scope.cancel()
    log.info('"%s" is unmounted', directory)


async def _listen(
    stop: trio.Event, hurry: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal asks to end, the second insists, a third is the kernel's to carry out."""
    with trio.open_signal_receiver(signal.SIGTERM, *unless_ignored(signal.SIGINT, signal.SIGHUP)) as signals:
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
