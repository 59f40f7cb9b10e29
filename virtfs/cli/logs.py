"""The log of a server."""

import faulthandler
import logging
import os
import sys

from virtfs.cli.log_sinks import File, Journal, Sink, Stream, Syslog, goes_to_journal
from virtfs.cli.log_writer import LogWriter

JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"


def open_log(file: str | None, foreground: bool, debug: bool) -> None:
    """Open the log of a server.

    The log is `file` if it is given. Otherwise a server in the foreground logs to stderr. A server in the background
    logs to systemd's journal, or to syslog if there is no journal, or nowhere if there is neither.

    If stderr is a stream to the journal, a server in the foreground logs to the journal's or syslog's own socket
    instead, if there is one, because the stream would lose the levels. OSError: the file cannot be opened.
    """
    sink = _sink(file, foreground)
    handler = LogWriter(sink) if sink is not None else logging.NullHandler()
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    # A logging handler cannot report a fatal signal, such as SIGSEGV.
    if isinstance(sink, File):
        faulthandler.enable(sink.fd)
    elif foreground and sys.stderr is not None:
        faulthandler.enable()


def _sink(file: str | None, foreground: bool) -> Sink | None:
    if file:
        return File(file)
    if foreground and not goes_to_journal(2):
        return Stream(sys.stderr)
    if os.path.exists(JOURNAL):
        return Journal(JOURNAL)
    if os.path.exists(SYSLOG):
        return Syslog(SYSLOG)
    return Stream(sys.stderr) if foreground else None


def close_log() -> None:
    """Write the lines that are still queued, and close the log."""
    logging.shutdown()
