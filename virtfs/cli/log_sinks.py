"""The possible destinations of a log. A sink is passed one line at a time, without its newline, and may block."""

import logging
import os
import socket
import time
from contextlib import suppress
from typing import Protocol, TextIO

# Maximum length of a line in characters. A datagram to syslog or to the journal has a maximum size.
LONGEST = 8192

# The levels of syslog(3), which the journal uses too.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_DAEMON = 3 << 3  # LOG_DAEMON, syslog(3)


class Sink(Protocol):
    """The destination of a log."""

    def write(self, level: int, module: str, line: str) -> None:
        """Write one line. OSError: the line is lost."""


class Stream:
    """A terminal or a pipe, read by people. A line begins with its level, unless that is INFO."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, level: int, module: str, line: str) -> None:
        word = "" if level == logging.INFO else f"{logging.getLevelName(level).lower()}: "
        self._stream.write(f"virtfs: {word}{line}\n")
        self._stream.flush()


class File:
    """A file. Each line begins with the time, the level and the module.

    A new file is readable and writable by its owner only. OSError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)

    def write(self, level: int, module: str, line: str) -> None:
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {logging.getLevelName(level)} {module}: {line}\n"
        os.write(self.fd, text.encode(errors="backslashreplace"))


class Datagrams:
    """A Unix socket of a log daemon. The daemon may be restarted at any time. path: the name of the socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, text: str) -> None:
        """Send one datagram. OSError: it is lost."""
        self._socket.sendto(text.encode(errors="backslashreplace"), self._path)


class Syslog(Datagrams):
    """The socket of syslog(3), usually /dev/log. The format is that of RFC 3164, without time and host."""

    def write(self, level: int, module: str, line: str) -> None:
        self.send(f"<{_DAEMON | _PRIORITIES.get(level, 5)}>virtfs[{os.getpid()}]: {line}")


class Journal(Datagrams):
    """The socket of systemd-journald. The format is "Native Journal Protocol" in systemd's documentation."""

    def write(self, level: int, module: str, line: str) -> None:
        self.send(f"MESSAGE={line}\nPRIORITY={_PRIORITIES.get(level, 5)}\nSYSLOG_IDENTIFIER=virtfs\nLOGGER={module}\n")


def goes_to_journal(fd: int) -> bool:
    """Return whether a descriptor is the journal stream that $JOURNAL_STREAM identifies (systemd.exec(5))."""
    with suppress(OSError):
        status = os.fstat(fd)
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False
