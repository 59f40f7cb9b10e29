"""Chooses the loop of the channel: in Python, or with the compiled module `plainloop` for plain requests."""

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtfs.fuse.plainloop import PlainLoop

_trace = logging.getLogger("virtfs.fuse.trace")


def plain_loop() -> "type[PlainLoop] | None":
    """Return the class of the compiled loop, or None if the Python loop answers all requests.

    The Python loop does so if virtfs was installed without a compiler, if the environment variable VIRTFS_LOOP is
    "python", and if requests are logged (`-o debug`).
    """
    if os.environ.get("VIRTFS_LOOP") == "python" or _trace.isEnabledFor(logging.DEBUG):
        return None
    try:
        from virtfs.fuse.plainloop import PlainLoop
    except ImportError:
        return None
    return PlainLoop


def name() -> str:
    """Return the name of the loop, for the file `version` and `virtfs --version`."""
    return "Python loop" if plain_loop() is None else "compiled loop"
