"""The log of a server, written by a separate thread.

A terminal can be stopped with Ctrl-S, a disk can hang, and a log daemon can be slow. None of these may delay the
thread that serves all users. So lines are queued, and a separate thread writes them. If the queue is full, lines are
lost and counted.
"""

import logging
import queue
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

from virtfs.cli.log_sinks import LONGEST, Sink
from virtfs.core.quoting import one_line
from virtfs.core.ratelimit import RateLimit

ROOM = 10_000  # maximum number of queued lines
MOST, INTERVAL = 20, 10.0  # at most MOST records from one place in the program are logged in INTERVAL seconds
PATIENCE = 2.0  # seconds that close() waits for the lines to be written

Line = tuple[int, str, str]  # level, module, text


class LogWriter(logging.Handler):
    """A handler that passes each record to a sink as one line.

    Further lines follow if the record has a traceback or the optional attribute `lines`.

    At most MOST records from one place in the program are logged in INTERVAL seconds. Records of level DEBUG are
    not limited.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._limit: RateLimit[tuple[str, str]] = RateLimit(MOST, INTERVAL)
        self._suppressed: dict[tuple[str, str], str] = {}  # the last line of each kind
        # Protects _limit and _suppressed. The handler's own lock would not do, because logging.shutdown() holds it
        # while close() waits for the thread. This lock is reentrant, because a signal handler may log while its thread
        # holds the lock.
        self._limiting = threading.RLock()
        # SimpleQueue.put() is reentrant, so a signal handler may log.
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._lost = 0
        self._closed = False
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # too many threads: the calling threads write the lines
            self._thread = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the lines of a record."""
        try:
            now = monotonic()
            kind = record.name, str(record.msg)
            with self._limiting:
                self._report_suppressed(now)
                admitted = record.levelno <= logging.DEBUG or self._limit.admit(kind, now)
                if not admitted:
                    self._suppressed[kind] = record.getMessage()
            if admitted:
                for line in _lines(record):
                    self._put((record.levelno, record.name, line))
            elif self._lines.empty():
                self._lines.put(None)  # wake the thread: it must report suppressed lines at the end of the interval
        except Exception:
            self.handleError(record)

    def _report_suppressed(self, now: float) -> None:
        for kind, count in self._limit.due(now):
            text = one_line(
                f"{count} more lines of this kind suppressed, the last: {self._suppressed.pop(kind, kind[1])}"
            )
            self._put((logging.WARNING, kind[0], text[:LONGEST]))

    def _put(self, line: Line) -> None:
        if self._thread is None:
            self._write(line)
        elif self._lines.qsize() < ROOM:
            self._lines.put(line)
        else:
            self._lost += 1

    def _run(self) -> None:
        """Write lines until close() has been called and the queue is empty."""
        while True:
            with self._limiting:
                self._report_suppressed(monotonic())
                due = self._limit.next_due()
            try:
                line = self._lines.get(timeout=None if due is None else max(0.01, due - monotonic()))
            except queue.Empty:
                continue
            if line is not None:
                self._write(line)
            elif self._closed and self._lines.empty():
                return

    def _write(self, line: Line) -> None:
        lost, self._lost = self._lost, 0
        with suppress(OSError, ValueError):
            self._sink.write(*line)
            if lost:
                self._sink.write(logging.WARNING, __name__, f"the log is slow: {lost} lines were lost here")

    def close(self) -> None:
        """Wait up to PATIENCE seconds for the queued lines to be written, then stop."""
        if not self._closed:
            with self._limiting:
                self._report_suppressed(monotonic() + INTERVAL)
            self._closed = True
            if self._thread is not None:
                self._lines.put(None)
                self._thread.join(PATIENCE)
        super().close()


def _lines(record: logging.LogRecord) -> Iterator[str]:
    """Yield the record's message as one line, then its traceback, then its `lines`, without unprintable characters."""
    yield one_line(record.getMessage())[:LONGEST]
    if record.exc_info:
        for part in traceback.format_exception(record.exc_info[1]):
            yield from (f"  {one_line(line)}"[:LONGEST] for line in part.rstrip("\n").split("\n"))
    for line in getattr(record, "lines", ()):
        yield f"  {one_line(line)}"[:LONGEST]
