"""`virtfs mount`: serve a mount in the foreground or in the background."""

import errno
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

from virtfs.cli.background import Ready, spawn
from virtfs.cli.hidden import hidden_names
from virtfs.cli.lacking import FOR_TAPS, without_taps
from virtfs.cli.logs import close_log, open_log
from virtfs.cli.mounts import ask, read
from virtfs.cli.notify import notify
from virtfs.cli.options import MountOptions, parse
from virtfs.cli.remount import remount
from virtfs.cli.surroundings import complain, sentence_of
from virtfs.cli.unseen import unseen
from virtfs.core.errors import VirtError
from virtfs.core.warning_text import split_warnings
from virtfs.fuse.hanging import SLOW, waiting
from virtfs.fuse.mounttable import mounted_at, resolve, still_mounted

log = logging.getLogger(__name__)

_WARNING = "warning: "  # begins a last_error that no command has caused

_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # the errnos of a lack of resources


def mount(
    directory: str,
    text: str,
    foreground: bool = False,
    sloppy: bool = False,
    source: str | None = None,
    program: str = "virtfs",
) -> int:
    """Mount at a directory and return the exit status.

    In the background, return when the mount is ready. In the foreground, return when the mount has ended.

    text, sloppy: passed to options.parse(). source: the source shown in the mount table, unless `text` contains
    fsname=. program: the name that warnings begin with. VirtError: the mount failed.
    """
    if "remount" in text.split(","):
        remount(directory, text, sloppy, program)
        return 0
    options = parse(text, sloppy)
    if options.source is None:
        options = replace(options, source=source)
    path = resolve(directory)
    if options.state and os.path.realpath(options.state).startswith(f"{path}/"):
        raise VirtError(errno.EINVAL, f'"state={options.state}" is inside the mount: name a file outside "{path}"')
    hidden = hidden_names(path)
    if foreground:
        # An inherited descriptor would keep a file system busy, or a pipe open, as long as the mount lasts.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))

        def now_ready() -> None:
            _warn(program, hidden)
            _warn(program, unseen(path, os.getpid()))
            notify("READY=1", f"STATUS=Serving {path}")

        return serve_here(path, options, now_ready, foreground=True)
    before = mounted_at(path)

    def slow() -> None:
        if before is not None and before.virtfs and still_mounted(before) and (why := waiting()):
            complain(program, why)

    try:
        server = spawn(lambda ready: serve_here(path, options, ready, foreground=False), SLOW, slow)
    except KeyboardInterrupt:
        complain(program, f'interrupted: the mount at "{path}" was given up before it was ready')
        raise
    _warn(program, hidden)
    _warn(program, unseen(path, server))
    if options.state:
        for warning in _about_state(path):
            _warn(program, warning)
    return 0


def _warn(program: str, sentence: str) -> None:
    if sentence:
        complain(program, f"warning: {sentence}")


def _about_state(path: str) -> Iterator[str]:
    """Yield warnings about a state file that cannot be saved, its lines that could not be replayed, and lost addresses.

    path: the mount point. In the foreground there are no such warnings, because the log has them.
    """
    (answer,) = ask([path], lambda mount: read(mount, "status.json"))
    if answer.error is not None:
        return
    state = json.loads(answer.data)["state"]
    if not state["saved"]:
        yield state["error"]
    if lines := state["failed_lines"]:
        number = f"{len(lines)} line{'s' if len(lines) > 1 else ''}"
        yield f'{number} of the state file could not be replayed: "virtfs ls -d {path}" has the reasons'
    (answer,) = ask([path], lambda mount: read(mount, "last_error"))
    said = "" if answer.error is not None else answer.data.decode(errors="replace").rstrip("\n")
    if said.startswith(_WARNING):
        yield from (warning.removeprefix(_WARNING) for warning in split_warnings(said))


def serve_here(path: str, options: MountOptions, ready: Ready, foreground: bool) -> int:
    """Serve a mount at a resolved directory in this process until it ends, and return the exit status.

    ready: a function that is called when the mount begins to answer requests.
    VirtError: the mount or its server failed.
    """
    # These modules import pyfuse3 and pyroute2, so import them only when needed, and after the fork.
    from virtfs.host import privileges

    privileges.drop()
    # Without one of these the mount or every tap fails, so the remedy for a /dev/fuse with mode 0600 would not help.
    if privileges.lacking(FOR_TAPS):
        raise VirtError(errno.EPERM, without_taps())
    try:
        open_log(options.log, foreground, options.debug)
    except OSError as e:
        raise VirtError(e.errno or errno.EIO, f'cannot open the log file "{options.log}": {e.strerror}') from None
    try:
        return _serve(path, options, ready, foreground)
    finally:
        close_log()


def _serve(path: str, options: MountOptions, ready: Ready, foreground: bool) -> int:
    from virtfs.cli import serving

    answers = False

    def now_ready() -> None:
        nonlocal answers
        answers = True
        log.info('"%s" is mounted', path)
        ready()

    try:
        serving.run(path, options, now_ready)
    except VirtError as e:
        if not foreground:
            log.error("%s", e.strerror)
        raise
    except Exception as e:
        # serving.run() has already unmounted the directory.
        if isinstance(e, PermissionError) and not answers:
            sentence = without_taps() or f'cannot mount at "{path}": {sentence_of(e)}'
            raise VirtError(errno.EPERM, sentence) from None
        if isinstance(e, OSError) and e.errno in _LACKING and not answers:
            raise VirtError(e.errno, f'cannot mount at "{path}": {sentence_of(e)}') from None
        if isinstance(e, RuntimeError) and "start new thread" in str(e) and not answers:  # CPython has no errno for it
            sentence = sentence_of(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
            raise VirtError(errno.EAGAIN, f'cannot mount at "{path}": {sentence}') from None
        log.exception('the server of "%s" failed', path)
        raise VirtError(errno.EIO, f'the server of "{path}" failed: {type(e).__name__}: {e}') from None
    if not answers and not foreground:
        sentence = f'the mount at "{path}" was ended before it was ready'
        log.warning("%s", sentence)
        raise VirtError(errno.EINTR, sentence)
    return 0
