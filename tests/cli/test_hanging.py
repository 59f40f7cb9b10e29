"""Calls on the mount of a killed server that is ending: the kernel removes its taps, which takes seconds."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBUSY

import pytest

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

        assert hanging.unless_stopped("/mnt/virt", call) == 7
        os.close(pidfd)


def test_the_process_is_named_if_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "ENDING", 0.2)
    with ending() as process, pytest.raises(VirtError) as refused:
        hanging.unless_stopped("/mnt/virt", _never)
    assert refused.value.errno == EBUSY
    assert "the server of the virtfs there may still be ending (" in refused.value.strerror
    assert f"pid {process.pid}" in refused.value.strerror


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert f"pid {process.pid}" not in hanging.ending_processes().split(", ")
