"""The log of a server."""

import logging
import logging.handlers
import os
import sys

SYSLOG = "/dev/log"


def open_log(file: str | None, foreground: bool, debug: bool) -> None:
    """Send the log to `file`.

    If `file` is None, a server in the foreground logs to stderr. A server in the background logs to syslog, or not at
    all if there is no syslog. OSError: the file cannot be opened.
    """
    handler: logging.Handler
    pattern = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    if file:
        handler = logging.FileHandler(file)
    elif foreground:
        handler = logging.StreamHandler(sys.stderr)
        pattern = "virtfs: %(message)s"
    elif os.path.exists(SYSLOG):
        handler = logging.handlers.SysLogHandler(SYSLOG)
        pattern = f"virtfs[{os.getpid()}]: %(message)s"
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(pattern))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
