"""The virtfs mounts that a user can see, and how commands use their files without hanging.

A command reads a mount through its files, like any other program. While the server of a mount is stopped, a call on a
file hangs, and only SIGKILL ends the calling process. So a child process for each mount makes the calls, and sends the
result through a pipe (fuse.hanging).
"""

import errno
import os
import selectors
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from virtfs.cli.shell_mark import began_before, own_first
from virtfs.cli.surroundings import complain, sentence_of
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.fuse.hanging import STOPPED, Child, may_be_stopped
from virtfs.fuse.mounttable import Mounted, mount_of, mounts, resolve

_NO_MOUNT = (
    "there is no virtfs mount: make one with virtfs mount DIR, or enter your virtfs shell with virtfs shell --join"
)
PATIENCE = 5.0  # seconds to wait for a mount's answer; a loaded machine may need more than 1 s

Work = Callable[[str], bytes]


class Answer(NamedTuple):
    """The answer from a mount. data: the result. error: why there is no result, or None."""

    data: bytes
    error: OSError | None = None


def visible() -> list[Mounted]:
    """Return the virtfs mounts in the mount table, each file system once: that of $VIRTFS, then by directory."""
    found = {mount.device: mount for mount in reversed(mounts()) if mount.virtfs and mount.root == "/"}
    place = own_first()
    return sorted(found.values(), key=lambda mount: place(mount.directory))


def chosen(directory: str | None) -> str:
    """Return the directory of the mount that a command refers to.

    directory: as the user gave it. If it is None, the first of these that exists is used: $VIRTFS, the mount that
    contains the working directory, the only mount. VirtError: ENOENT, there is no mount; EINVAL, there are several.
    """
    if directory := directory or os.environ.get("VIRTFS"):
        return resolve(directory)
    seen = [mount.directory for mount in visible()]
    here = os.getcwd()
    inside = [mount for mount in seen if f"{here}/".startswith(f"{mount.rstrip('/')}/")]
    if inside:
        return max(inside, key=len)
    if not seen:
        raise VirtError(errno.ENOENT, no_mount())
    if len(seen) > 1:
        raise VirtError(errno.EINVAL, f"there are several mounts: choose one with -d: {', '.join(seen)}")
    return seen[0]


def visible_at(directory: str) -> Mounted:
    """Return the virtfs mount at a directory. VirtError EINVAL: there is none."""
    path = resolve(directory)
    seen = visible()
    for mount in seen:
        if mount.directory == path:
            return mount
    inside = mount_of(path)
    whole = next((mount.directory for mount in seen if inside is not None and mount.device == inside.device), "")
    rest = f": it is inside the one at {quoted(whole)}" if whole else ""
    raise VirtError(errno.EINVAL, f"{quoted(directory)} is not a virtfs mount{rest or began_before()}")


def no_mount() -> str:
    """Return the error message if there is no mount. It names stopped servers, whose mounts may be gone."""
    stopped = may_be_stopped()
    return f"{_NO_MOUNT}{stopped and f'; a server {stopped}'}"


def expect_virtfs(directory: str) -> None:
    """Raise VirtError ENOENT unless a virtfs is mounted at a resolved directory or above it. Reads only the table."""
    mount = mount_of(directory)
    if mount is None or not mount.virtfs:
        raise VirtError(errno.ENOENT, f'there is no virtfs mounted at "{directory}"{began_before()}')


def ask(directories: Sequence[str], work: Work, seconds: float = PATIENCE) -> list[Answer]:
    """Call `work` for all directories at the same time. Return the answers in the order of the directories.

    work: gets a mount point, and reads or writes files below it. It runs in a child process, and may raise OSError.
    If a mount does not answer within `seconds`, its Answer has the error ETIMEDOUT.
    """
    answers: dict[int, bytes] = dict.fromkeys(range(len(directories)), b"")
    with _children(directories, work) as (pipes, children):
        end = time.monotonic() + seconds
        while pipes.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in pipes.select(left):
                answers[key.data] += _more(pipes, key.fd)
        silent = {key.data for key in pipes.get_map().values()}
        failed = {at: child.status for at, child in enumerate(children) if at not in silent and child.ended(STOPPED)}
    return [_answer(data, at in silent, failed.get(at)) for at, data in answers.items()]


def ask_patiently(directory: str, work: Work) -> bytes:
    """Call `work` for one directory, however long it takes, and return its result. OSError: the error of `work`.

    If the call takes long and the mount's server may be stopped, print a message. Ctrl-C ends the wait.
    """
    data, told = b"", False
    with _children([directory], work) as (pipes, (child,)):
        while pipes.get_map():
            ready = pipes.select(None if told else STOPPED)
            if not ready:
                told = True
                if stopped := may_be_stopped():
                    complain("virtfs", f"{quoted(directory)}: its server {stopped}; waiting for it")
            for key, _ in ready:
                data += _more(pipes, key.fd)
        return _result(data, child)


def ask_while_read(directory: str, work: Work, pipe: int) -> bytes:
    """Call `work` for one directory, and return its result. Return b"" as soon as `pipe` has no reader.

    pipe: the write end of a pipe, which `work` may write to. OSError: the error of `work`.
    """
    data = b""
    with _children([directory], work) as (pipes, (child,)):
        own = next(iter(pipes.get_map()))
        pipes.register(pipe, selectors.EVENT_READ)  # POLLERR: the pipe has no reader (pipe(7))
        while own in pipes.get_map():
            for key, _ in pipes.select():
                if key.fd == pipe:
                    return b""
                data += _more(pipes, key.fd)
        return _result(data, child)


def _more(pipes: selectors.DefaultSelector, pipe: int) -> bytes:
    """Read from a pipe. At its end, take it out of `pipes`."""
    data = os.read(pipe, 1 << 20)
    if not data:
        pipes.unregister(pipe)
    return data


def _result(data: bytes, child: Child) -> bytes:
    """Wait for a child that has closed its pipe, and return its result. OSError: the error of its work."""
    child.ended(STOPPED)
    answer = _answer(data, False, child.status)
    if answer.error is not None:
        raise answer.error
    return answer.data


@contextmanager
def _children(directories: Sequence[str], work: Work) -> Iterator[tuple[selectors.DefaultSelector, list[Child]]]:
    with ExitStack() as ending:
        pipes = ending.enter_context(selectors.DefaultSelector())
        children = []
        for at, directory in enumerate(directories):
            reader, writer = os.pipe()
            ending.callback(os.close, reader)
            children.append(ending.enter_context(Child(partial(_report, work, directory, writer))))
            os.close(writer)
            pipes.register(reader, selectors.EVENT_READ, at)
        yield pipes, children


def _report(work: Work, directory: str, pipe: int) -> int:
    """Call `work` and write its result into the pipe. Return 0, or 1 if the result is an OSError. Runs in a child.

    While the server is stopped, the child may outlive the command. So the child's standard streams are redirected to
    /dev/null: they may be pipes whose readers wait for end of file.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    try:
        data, status = work(directory), 0
    except OSError as error:
        data, status = f"{error.errno or errno.EIO} {sentence_of(error)}".encode(errors="surrogateescape"), 1
    with open(pipe, "wb", closefd=False) as out:
        out.write(data)
    return status


def _answer(data: bytes, silent: bool, status: int | None) -> Answer:
    if silent:
        stopped = may_be_stopped()
        return Answer(b"", VirtError(errno.ETIMEDOUT, f"no answer{stopped and f'; its server {stopped}'}"))
    if status == 0:
        return Answer(data)
    number, _, reason = data.decode(errors="surrogateescape").partition(" ")
    if not number.isdecimal():
        return Answer(b"", VirtError(errno.EIO, "the mount cannot be read"))
    return Answer(b"", VirtError(int(number), reason))


def read(directory: str, name: str) -> bytes:
    """Return the contents of a file of a mount. Call this in a child process, because it may hang.

    OSError: the file cannot be read; if virtfs has refused it, the message is the text of last_error.
    """
    began = time.time_ns()
    try:
        return _contents(directory, name)
    except OSError as error:
        raise explained(error, directory, began) from None


def _contents(directory: str, name: str) -> bytes:
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def last_error(directory: str, began: int) -> str:
    """Return the text of last_error if virtfs has set it since a time, even to an equal text, or "" if it has not.

    directory: the mount, or the directory of an interface or bridge. began: time.time_ns() before a call on the mount.
    """
    for above in (".", "..", "../.."):
        top = os.path.join(directory, above)
        with suppress(OSError):
            if os.stat(os.path.join(top, "last_error")).st_mtime_ns < began:
                return ""
            return _contents(top, "last_error").decode("utf-8", "surrogateescape").strip()
    return ""


def explained(error: OSError, directory: str, began: int) -> OSError:
    """Return the error of a call, with the text of last_error as its message if virtfs has refused the call.

    The kernel refuses some calls by itself, for example for permission bits. directory, began: as for last_error().
    """
    sentence = last_error(directory, began)
    return VirtError(error.errno or errno.EIO, sentence) if sentence else error


def say(text: str) -> None:
    """Print a text to standard output, and flush the stream."""
    sys.stdout.write(text)
    sys.stdout.flush()
