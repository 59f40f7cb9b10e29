"""Calls on the mount of a killed server that is ending: the kernel removes its taps, which takes seconds."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBUSY
from pathlib import Path

import pytest
from harness.running import ENVIRONMENT, VIRTFS, mounted, run, serving
from harness.waiting import PATIENCE

from virtfs.core.errors import VirtError
from virtfs.fuse import hanging

# A process whose first thread has ended is ending, and not yet gone. _exit(2) of the C library ends all threads.
ENDING = """
import ctypes, os, threading
threading.Thread(target=lambda: (os.write(1, b"begins"), os.read(0, 1), os._exit(0))).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "SLOW", 0.05)
    monkeypatch.setattr(hanging, "STOPPED", 0.1)
    monkeypatch.setattr(hanging, "stopped_servers", lambda: "")  # other tests stop servers


@contextmanager
def ending() -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a process that is ending until something is written to it."""
    process = subprocess.Popen([sys.executable, "-c", ENDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"begins"
        while f"pid {process.pid}" not in hanging.ending_processes().split(", "):
            assert process.poll() is None
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _waits_for(pid: int) -> re.Pattern[str]:
    """Return the pattern of the sentence about an ending process. Other processes of the machine may be ending too."""
    killed = rf"the server that was killed \(.*\bpid {pid}\b.*\)"
    return re.compile(f"waiting for {killed}, whose taps the kernel still removes")


def _never() -> int:
    select.select([], [], [])
    return 0


def test_a_call_waits_for_a_server_that_is_ending() -> None:
    with ending() as process:
        pidfd = os.pidfd_open(process.pid)
        said = process.stdin

        def call() -> int:
            """Return when the process has ended. Let it end once the call has certainly waited for STOPPED."""
            assert said is not None
            select.select([], [], [], 0.5)
            said.write(b"x")
            said.flush()
            select.select([pidfd], [], [])
            return 7

        told: list[str] = []
        assert hanging.unless_stopped("/mnt/virt", call, told.append) == 7
        os.close(pidfd)
    (sentence,) = told
    assert _waits_for(process.pid).fullmatch(sentence)


def test_a_call_that_is_answered_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "SLOW", 30.0)  # on a busy machine, the child may need a second to begin
    told: list[str] = []
    with ending():
        assert hanging.unless_stopped("/mnt/virt", lambda: 7, told.append) == 7
    assert told == []


@pytest.mark.parametrize("command", [["mount"], ["mount", "-o", "remount"], ["umount"]])
def test_a_command_that_waits_says_so(tmp_path: Path, command: list[str]) -> None:
    """A stopped server does not answer, like one that is ending. `virtfs umount` goes on once the server has ended."""
    with serving(tmp_path) as server, ending() as process:
        server.process.send_signal(signal.SIGSTOP)
        said = subprocess.Popen([*VIRTFS, *command, tmp_path], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        assert said.stderr is not None
        first = said.stderr.readline()
        server.process.kill()
        said.communicate(timeout=PATIENCE)
    start = f'virtfs: "{tmp_path}" is unmounted; ' if command == ["umount"] else "virtfs: "
    assert first.startswith(start)
    assert _waits_for(process.pid).fullmatch(first.removeprefix(start).rstrip("\n"))
    if mounted(tmp_path):
        run([*VIRTFS, "umount", str(tmp_path)])


def test_the_process_is_named_if_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "ENDING", 0.2)
    told: list[str] = []
    with ending() as process, pytest.raises(VirtError) as refused:
        hanging.unless_stopped("/mnt/virt", _never, told.append)
    assert refused.value.errno == EBUSY
    assert "the server of the virtfs there may still be ending (" in refused.value.strerror
    assert f"pid {process.pid}" in refused.value.strerror


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert f"pid {process.pid}" not in hanging.ending_processes().split(", ")
