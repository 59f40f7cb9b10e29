"""Chooses the loop of the channel: the one in Python, or the compiled one (plainloop.pyx)."""

import logging
from typing import TYPE_CHECKING

from virtfs.core.compiled import compiled

if TYPE_CHECKING:
    from virtfs.fuse.plainloop import PlainLoop

_trace = logging.getLogger("virtfs.fuse.trace")


def plain_loop() -> "type[PlainLoop] | None":
    """Return the class of the compiled loop, or None if the Python loop answers all requests.

    That is so if no compiled modules are in use (core.compiled) or if requests are logged (`-o debug`).
    """
    if _trace.isEnabledFor(logging.DEBUG):
        return None
    loop: type[PlainLoop] | None = compiled("virtfs.fuse.plainloop", "PlainLoop")
    return loop


def name() -> str:
    """Return the name of the loop, for the file `version` and `virtfs --version`."""
    return "Python loop" if plain_loop() is None else "compiled loop"
