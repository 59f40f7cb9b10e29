"""The life of one mount: attach, serve, detach.

The order at the end matters. First the service ends: it answers all waiting readers and closes the taps. Then the
mount is detached. /dev/fuse is closed last, and `virtfs umount` waits for that. Requests that arrived after the end of
the service fail when /dev/fuse is closed. Nothing here opens a path in the mount, because this process would have to
answer its own request.
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

from virtfs.cli.notify import notify
from virtfs.cli.options import MountOptions
from virtfs.cli.signals import unless_ignored
from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.core.quantities import format_size
from virtfs.daemon.service import serve
from virtfs.forward.supervisor import supervised
from virtfs.forward.tasks import only, surely_in_thread
from virtfs.fuse.mount import attach, detach_own, wait_unmounted
from virtfs.fuse.mounttable import Mounted, mounted_at
from virtfs.host import descriptors

log = logging.getLogger(__name__)

GRACE = 5  # seconds from the second signal to SIGALRM, which ends the process


def run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    """Serve a mount at a resolved directory until it is unmounted or a signal ends the service.

    ready: a function that is called when the mount begins to answer requests. VirtError: the mount failed. Any other
    exception: the service failed. In every case the directory is unmounted before this function returns or raises.
    """
    limits = options.limits.consistent()
    if limits != options.limits and "max_user_memory" in options.given:
        most, wanted = format_size(limits.user_memory), format_size(options.limits.user_memory)
        log.warning("max_user_memory is %s instead of %s: it cannot exceed max_memory", most, wanted)
    options = replace(options, limits=within(limits, descriptors.raise_limit()))
    try:
        trio.run(_run, directory, options, ready)
    except BaseExceptionGroup as group:
        raise only(group) from None


def within(limits: Limits, files: int) -> Limits:
    """Return `limits`. If RLIMIT_NOFILE allows fewer interfaces, lower `virts` and log a warning.

    files: the maximum number of open files in this process. VirtError EMFILE: `files` is too low for one interface.
    """
    most = descriptors.interfaces(files)
    if not most:
        sentence = f"the limit of {files} open files (RLIMIT_NOFILE) is too low for one interface: raise the hard limit"
        raise VirtError(errno.EMFILE, sentence)
    if most >= limits.virts:
        return limits
    log.warning("max_virts is %d instead of %d: only %d files may be open (RLIMIT_NOFILE)", most, limits.virts, files)
    return replace(limits, virts=most)


class Once:
    """Calls a function once: at the first call(). Later calls do nothing."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._called = False

    def call(self) -> None:
        if not self._called:
            self._called = True
            self._function()


async def _run(directory: str, options: MountOptions, ready: Callable[[], None]) -> None:
    stop, hurry, listening = trio.Event(), trio.CancelScope(), trio.Event()
    ending = Once(partial(notify, "STOPPING=1", "STATUS=Removing the interfaces"))
    async with supervised() as tasks:
        tasks.keep(partial(_listen, stop, hurry, listening, ending), name="listening to signals")
        await listening.wait()
        flags = [flag for flag, on in options.flags if on]
        fuse = await trio.to_thread.run_sync(attach, directory, options.source or "virtfs", flags)
        mount = mounted_at(directory)
        try:
            if mount is not None:
                tasks.keep(partial(_watch, mount, stop, ending), name="watching the mount table")
            with hurry:
                state = Path(options.state) if options.state else None
                await serve(fuse, directory, options.limits, ready, stop, state, options.text(), options.internet)
        finally:
            ending.call()  # _watch may not have noticed yet that the mount is gone
            try:
                if mount is not None:
                    with trio.CancelScope(shield=True):
                        await surely_in_thread(partial(detach_own, mount), trio.CapacityLimiter(1))
            finally:
                os.close(fuse)
        tasks.cancel()
    log.info('"%s" is unmounted', directory)


async def _listen(stop: trio.Event, hurry: trio.CancelScope, listening: trio.Event, ending: Once) -> None:
    """End the service at the first signal, and cancel it at the second. A third signal has its default action."""
    with trio.open_signal_receiver(signal.SIGTERM, *unless_ignored(signal.SIGINT, signal.SIGHUP)) as signals:
        listening.set()
        async for number in signals:
            log.info("%s: ending", signal.Signals(number).name)
            ending.call()
            if stop.is_set():
                break
            stop.set()
    hurry.cancel()
    # A worker thread cannot be cancelled. If one blocks, the default action of SIGALRM ends the process.
    signal.alarm(GRACE)


async def _watch(mount: Mounted, stop: trio.Event, ending: Once) -> None:
    await wait_unmounted(mount)
    ending.call()
    stop.set()
