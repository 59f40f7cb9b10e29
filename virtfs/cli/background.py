"""Start a server in the background, and wait until it is ready."""

import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable

from virtfs.cli.notify import not_the_service
from virtfs.cli.signals import start_afresh
from virtfs.core.errors import VirtError
from virtfs.host.processes import end_with, outlive_parent

Ready = Callable[[], None]
_READY = b"\0"  # sent by the child once it is ready; an error message never begins with this byte


def spawn(run: Callable[[Ready], int], seconds: float | None = None, slow: Callable[[], None] = lambda: None) -> int:
    """Fork a child that calls run(ready) and exits with the result of run().

    Wait until the child has called ready(), and return the process id of the child. slow: called once in this process
    if the child has not called ready() after `seconds`.

    The child leads a new session without a terminal, in the directory /. Its only open descriptors are 0 to 2, on
    /dev/null. Call this before starting threads. VirtError: the error that `run` raised before it called ready().

    If this process ends before the child is ready, the child gets SIGTERM, since nobody knows of it. After Ctrl-C, this
    function waits until the child has ended, and raises KeyboardInterrupt.
    """
    parent = os.getpid()
    hearing, telling = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) == 0:
        os.close(hearing)
        _child(run, telling, parent)
    os.close(telling)
    try:
        with open(hearing, "rb") as pipe:
            poller = select.poll()  # select(2) cannot wait for a descriptor above 1023
            poller.register(pipe, select.POLLIN)
            if not poller.poll(None if seconds is None else seconds * 1000):
                slow()
            said = pipe.read()
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    if said == _READY:
        return child
    os.waitpid(child, 0)
    number, _, sentence = said.decode(errors="replace").partition(" ")
    if not sentence:
        raise VirtError(errno.EIO, "the server exited before it was ready, without an error message")
    raise VirtError(int(number), sentence)


def _child(run: Callable[[Ready], int], telling: int, parent: int) -> None:
    """Call `run` in the forked child, then exit with its result. This function never returns."""
    status = 1

    def tell(what: bytes) -> None:
        nonlocal telling
        if telling >= 0:
            os.write(telling, what)
            os.close(telling)
            telling = -1

    def ready() -> None:
        outlive_parent()
        try:
            tell(_READY)
        except BrokenPipeError:  # the parent ended just before
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        os.setsid()
        start_afresh()
        end_with(parent, signal.SIGTERM)
        not_the_service()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.closerange(3, telling)
        os.closerange(telling + 1, os.sysconf("SC_OPEN_MAX"))
        status = run(ready)
    except VirtError as e:
        tell(f"{e.errno} {e.strerror}".encode())
    except BaseException as e:
        # Catch every exception, so that the parent can report it.
        reason = "".join(traceback.format_exception_only(e)).strip().splitlines()[-1]
        tell(f"{errno.EIO} {reason}".encode())
    finally:
        os._exit(status)  # also if there is no parent that could be told
