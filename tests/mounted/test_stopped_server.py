"""virtfs mount and umount while the server of the mount is stopped: a sentence after some seconds; Ctrl-C works."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.fixtures import Alone
from harness.forks import Program
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, PROJECT, Mount
from harness.waiting import until

from virtfs.cli import mounts
from virtfs.core.errors import VirtError

VIRTFS = [sys.executable, "-m", "virtfs"]


@pytest.fixture
def stopped(alone: Alone) -> Mount:
    mount = alone()
    os.kill(mount.server.pid, signal.SIGSTOP)
    return mount


def virtfs(mount: Mount, *words: str) -> Program:
    return mount.start(*VIRTFS, *words, DIR, env=ENVIRONMENT, cwd=PROJECT, stderr=subprocess.PIPE)


def test_mount(stopped: Mount) -> None:
    program = virtfs(stopped, "mount")
    said = finished(program)[1]
    os.kill(stopped.server.pid, signal.SIGCONT)
    assert program.returncode == 1
    assert f'"{DIR}" is busy' in said
    assert f"(pid {stopped.server.pid})" in said or f"pid {stopped.server.pid}" in said
    assert "kill -CONT" in said


def test_remount(stopped: Mount) -> None:
    program = virtfs(stopped, "mount", "-o", "remount,noatime")
    said = finished(program)[1]
    os.kill(stopped.server.pid, signal.SIGCONT)
    assert program.returncode == 1
    assert f'"{DIR}" is busy' in said
    assert "kill -CONT" in said
    assert "noatime" not in stopped.sh(f"grep ' {DIR} ' /proc/self/mountinfo"), "nothing has changed"


def test_umount(stopped: Mount) -> None:
    """The command says why it waits, and ends as soon as the server continues."""
    program = virtfs(stopped, "umount")
    assert program.stderr is not None
    line = program.stderr.readline()
    if "whose taps the kernel still removes" in line:  # any process that takes long to end may be such a server
        line = program.stderr.readline()
    assert f'"{DIR}" is unmounted, but its server may be stopped' in line
    remedy = rf"pid {stopped.server.pid}\b.*\): continue it with kill -CONT, or end it with kill -KILL"
    assert re.search(remedy, line)
    os.kill(stopped.server.pid, signal.SIGCONT)
    finished(program)
    assert program.returncode == 0
    assert stopped.ended() == 0


def test_a_server_that_an_interrupted_umount_left_is_named(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount is gone, but the stopped server keeps its taps and the lock of its state file."""
    mount = alone("state=/mnt/state")
    os.kill(mount.server.pid, signal.SIGSTOP)
    program = virtfs(mount, "umount")
    assert program.stderr is not None
    program.stderr.readline()
    program.send_signal(signal.SIGINT)
    finished(program)
    user = f"the server of another mount (pid {mount.server.pid}) is using it, and is stopped"
    assert (
        f"{user}: continue it with kill -CONT, or end it with kill -KILL"
        in finished(virtfs(mount, "mount", "-o", "state=/mnt/state"))[1]
    )
    monkeypatch.setattr(mounts, "visible", list)
    with pytest.raises(VirtError, match=rf"no virtfs mount: .*; a server may be stopped \(.*pid {mount.server.pid}\b"):
        mounts.chosen(None)
    os.kill(mount.server.pid, signal.SIGCONT)
    assert mount.ended() == 0


@pytest.mark.parametrize("command", ["mount", "umount"])
def test_ctrl_c(stopped: Mount, command: str) -> None:
    program = virtfs(stopped, command)
    if command == "umount":
        assert program.stderr is not None
        program.stderr.readline()
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    until(children.read_text, "a child process asks the server")
    program.send_signal(signal.SIGINT)
    said = finished(program)[1]
    assert program.returncode == 130
    assert "Traceback" not in said
    os.kill(stopped.server.pid, signal.SIGCONT)
    if command == "umount":
        assert stopped.ended() == 0
