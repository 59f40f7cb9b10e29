"""The log: one line for each event, whatever the names in it."""

import logging
import sys

from virtfs.cli.log_lines import PlainFormatter


def test_a_name_cannot_forge_a_line_or_reach_the_terminal() -> None:
    record = logging.makeLogRecord({"msg": "%s is gone", "args": ("t\x1b[2J\n3: tap4\udcff",), "levelname": "INFO"})
    assert PlainFormatter("virtfs: %(message)s").format(record) == r"virtfs: t\x1b[2J\n3: tap4\xff is gone"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    first, second, *_, last = PlainFormatter("%(message)s").format(record).split("\n")
    assert (first, second) == ("failed", "Traceback (most recent call last):")
    assert last == r"ValueError: \x1b[2J"
