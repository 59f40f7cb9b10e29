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
    """Open the log: `file` if it is given, otherwise stderr in the foreground, and the system's log in the background.

    The system's log is the journal of systemd or else syslog; without either, nothing is logged. If stderr leads to the
    journal, the server writes to the journal itself, which preserves the levels. OSError: the file cannot be opened.
    """
    sink = _sink(file, foreground)
    handler = LogWriter(sink) if sink is not None else logging.NullHandler()
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    # A handler cannot log a fatal signal, such as SIGSEGV.
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
    """Write all lines that wait in the log."""
    logging.shutdown()
