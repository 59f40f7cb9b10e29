"""The log of a server: one line an event, limited where a client can cause it, and never in the way of the server."""

import errno
import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from harness.fixtures import Alone
from harness.process import fails
from harness.serving import Mount
from harness.waiting import PATIENCE, until

from virtfs.cli import log_writer, logs
from virtfs.cli.log_sinks import File, Journal, Syslog, goes_to_journal
from virtfs.cli.log_writer import LogWriter
from virtfs.daemon import diagnosis


class Paper:
    """A sink that keeps the lines, and stops writing while `stopped` is set."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.going = threading.Event()
        self.going.set()

    def write(self, level: int, module: str, line: str) -> None:
        self.going.wait()
        self.lines.append(f"{logging.getLevelName(level)} {line}")


@pytest.fixture
def paper() -> Paper:
    return Paper()


@pytest.fixture
def log(paper: Paper) -> Iterator[logging.Logger]:
    """A logger that writes to `paper`."""
    logger = logging.Logger("some.module")
    writer = LogWriter(paper)
    logger.addHandler(writer)
    yield logger
    paper.going.set()
    writer.close()


def close(log: logging.Logger) -> None:
    for handler in log.handlers:
        handler.close()


def test_a_record_is_one_line_whatever_it_quotes(log: logging.Logger, paper: Paper) -> None:
    log.warning("the process %s ended", "a\nERROR forged\x1b[2J\u202e")
    close(log)
    (line,) = paper.lines
    assert line.startswith("WARNING the process a\\nERROR forged\\x1b[2J")
    assert line.isprintable()


def test_a_traceback_follows_line_by_line(log: logging.Logger, paper: Paper) -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        log.exception("it failed")
    close(log)
    assert paper.lines[0] == "ERROR it failed"
    assert paper.lines[1] == "ERROR   Traceback (most recent call last):"
    assert paper.lines[-2:] == ["ERROR   ValueError: one", "ERROR   two"]


def test_of_one_kind_some_are_logged_and_the_others_counted(log: logging.Logger, paper: Paper) -> None:
    for number in range(log_writer.MOST + 5):
        log.error("request %d failed", number)
    log.error("another kind")
    close(log)
    assert paper.lines[: log_writer.MOST] == [f"ERROR request {number} failed" for number in range(log_writer.MOST)]
    assert paper.lines[log_writer.MOST :] == [
        "ERROR another kind",
        f"WARNING 5 more lines of this kind suppressed, the last: request {log_writer.MOST + 4} failed",
    ]


def test_the_count_is_logged_when_the_interval_ends(
    log: logging.Logger, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(log_writer, "monotonic", lambda: now[0])
    for _ in range(log_writer.MOST + 1):
        log.error("failed")
    until(lambda: len(paper.lines) == log_writer.MOST, "the lines are written")
    now[0] = log_writer.INTERVAL - 0.02  # the thread looks again when the interval has ended
    log.debug("tick")
    now[0] = log_writer.INTERVAL
    until(lambda: "suppressed" in paper.lines[-1], "the count")


def test_debug_has_no_such_limit(log: logging.Logger, paper: Paper) -> None:
    for _ in range(3 * log_writer.MOST):
        log.debug("request")
    close(log)
    assert len(paper.lines) == 3 * log_writer.MOST


def test_the_end_waits_for_the_thread_that_writes(log: logging.Logger, paper: Paper) -> None:
    """logging.shutdown() holds the handler's lock meanwhile, and the thread does not need it."""
    (handler,) = log.handlers
    for number in range(20):
        log.debug("%d", number)
    handler.acquire()
    handler.close()
    handler.release()
    assert len(paper.lines) == 20
    assert isinstance(handler, LogWriter)
    assert not [thread for thread in threading.enumerate() if thread.name == "log" and thread is handler._thread]


def test_a_slow_sink_loses_lines_and_delays_nobody(
    log: logging.Logger, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "ROOM", 10)
    paper.going.clear()
    for number in range(100):
        log.debug("%d", number)
    paper.going.set()
    close(log)
    assert 10 <= len([line for line in paper.lines if line.startswith("DEBUG")]) <= 11
    reports = [re.fullmatch("WARNING the log is slow: ([0-9]+) lines were lost here", line) for line in paper.lines]
    lost = [int(report[1]) for report in reports if report]
    assert lost
    assert len(paper.lines) - len(lost) + sum(lost) == 100


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        (Syslog, "<27>virtfs[PID]: some → text"),
        (Journal, "MESSAGE=some → text\nPRIORITY=3\nSYSLOG_IDENTIFIER=virtfs\nLOGGER=some.module\n"),
    ],
    ids=["syslog", "journal"],
)
def test_the_log_daemons_of_the_system(sink: Callable[[str], Syslog | Journal], expected: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    to = sink(path)
    with pytest.raises(FileNotFoundError):
        to.write(logging.ERROR, "some.module", "lost")
    for _ in range(2):  # the daemon starts again
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            to.write(logging.ERROR, "some.module", "some → text")
            assert daemon.recv(1000).decode() == expected.replace("PID", str(os.getpid()))
        os.unlink(path)


def test_a_file_is_private_and_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        sink = File(str(path))
        sink.write(logging.WARNING, "some.module", "a line \udcff")
        os.close(sink.fd)
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = path.read_text().splitlines()
    assert first.endswith(" WARNING some.module: a line \\udcff")
    assert second.endswith("a line \\udcff")


def test_a_file_that_logrotate_has_truncated(tmp_path: Path) -> None:
    """logrotate's copytruncate copies the file and truncates it. The next line then begins the file."""
    sink = File(str(tmp_path / "log"))
    try:
        sink.write(logging.INFO, "m", "before")
        os.truncate(tmp_path / "log", 0)
        sink.write(logging.INFO, "m", "after")
    finally:
        os.close(sink.fd)
    assert re.fullmatch("[0-9: -]+ INFO m: after\n", (tmp_path / "log").read_text())


def test_stderr_that_leads_to_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(0)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert goes_to_journal(0)
    monkeypatch.setenv("JOURNAL_STREAM", "0:0")
    assert not goes_to_journal(0)


def test_a_background_server_logs_to_the_system(mount: Mount, tmp_path: Path) -> None:
    """The journal is preferred to syslog, which leads there too on a system with systemd."""
    directory = Path(logs.JOURNAL).parent
    mount.sh(f"mkdir /mnt/second; mount -t tmpfs tmpfs /run; mkdir -p {directory}; mount --bind {tmp_path} {directory}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(PATIENCE)
        assert mount.fork("virtfs", "mount", "/mnt/second").wait(PATIENCE) == 0
        assert journal.recv(1000).startswith(b'MESSAGE="/mnt/second" is mounted\nPRIORITY=6\n')
        mount.sh("umount /mnt/second")
        assert journal.recv(1000).startswith(b'MESSAGE="/mnt/second" is unmounted\nPRIORITY=6\n')
    mount.sh(f"umount {directory}; umount --lazy /run; rmdir /mnt/second")


def test_a_reader_of_stderr_that_stops_does_not_stop_the_server(mount: Mount) -> None:
    """The pipe has room for 4096 bytes. Each of these reads makes a dozen lines."""
    mount.sh("mkdir /mnt/third")
    server = mount.fork("virtfs", "mount", "-f", "-o", "debug", "/mnt/third", stderr=subprocess.PIPE)
    assert server.stderr is not None
    fcntl.fcntl(server.stderr, fcntl.F_SETPIPE_SZ, 4096)
    until(lambda: "/mnt/third" in mount.mounts(), "it is mounted")
    mount.sh("for n in {1..20}; do read -r line </mnt/third/version; done; echo create 3 >/mnt/third/ctl")
    assert mount.has("tap3")
    held = int.from_bytes(fcntl.ioctl(server.stderr, termios.FIONREAD, bytes(4)), "little")
    assert held > 3500, "the pipe is full"
    mount.sh("umount /mnt/third")
    server.communicate(PATIENCE)
    mount.sh("rmdir /mnt/third")


def test_debug_shows_every_request(alone: Alone) -> None:
    mount = alone("debug")
    mount.ctl("create 3 up")
    assert mount.read("virt3/mtu") == "1500"
    with fails(errno.ENOENT):
        mount.root.open("virt9")
    mount.root.open("virt3/frame").write(bytes(60))
    with fails(errno.ERANGE):
        mount.ctl("virt3 mtu 99999")
    for expected in (
        "[0-9]+ WRITE /ctl fh [0-9]+ offset 0 size 16, user 0",
        'last_error of user 0: "virt3 mtu 99999": mtu: "99999" is outside the range 68 to 65521$',
        "[0-9]+ WRITE /ctl: ERANGE after [0-9.]+ ms",
        '[0-9]+ LOOKUP / "virt9", user 0, group 0, thread [1-9]',
        "[0-9]+ LOOKUP /: ENOENT after [0-9.]+ ms",
        "[0-9]+ READ /virt3/mtu fh [0-9]+ offset 0 size [0-9]+, user 0",
        "[0-9]+ READ /virt3/mtu: 5 bytes after [0-9.]+ ms",
        "[0-9]+ WRITE /virt3/frame: 60 bytes after [0-9.]+ ms",
    ):
        line = re.compile(f"^virtfs: debug: {expected}", re.MULTILINE)
        until(partial(lambda line: line.search("".join(mount.log)), line), expected)


def test_sigusr2_logs_the_state(mount: Mount) -> None:
    mount.ctl("create 3 description a state to log")
    file = mount.root.open("virt3/frame")
    mount.server.send_signal(signal.SIGUSR2)
    until(lambda: "in describe" in "".join(mount.log), "the stack of the main thread")
    text = "".join(mount.log)
    for expected in (
        "options: none",
        "ctl: create 3 link ",
        "description a state to log",
        "virt3: no frames",
        f"open: virt3/frame, user 0, process {mount.root.pid}",
        "task:   virtfs.cli.serving._run at ",
        "thread MainThread:",
    ):
        assert expected in text
    file.close()
    assert mount.read("virt3/description") == "a state to log"
    mount.server.send_signal(signal.SIGUSR2)
    line = re.compile(r"step: [0-9.]+ ms, [0-9.]+ ms of processor time, [0-9.]+ s ago: \w")
    until(lambda: line.search("".join(mount.log)), "the longest steps since the first SIGUSR2")


def test_an_unexpected_end_logs_the_state(log: logging.Logger, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "log", log)
    state = cast(diagnosis.Diagnosis, SimpleNamespace(lines=lambda: ["ctl: create 3", "a\nb"]))
    try:
        raise ValueError("unexpected")
    except ValueError:
        diagnosis.log_unexpected_end(state)
    close(log)
    assert paper.lines[0] == "CRITICAL the mount is ending unexpectedly"
    assert paper.lines[-3:] == ["CRITICAL   ValueError: unexpected", "CRITICAL   ctl: create 3", "CRITICAL   a\\nb"]
