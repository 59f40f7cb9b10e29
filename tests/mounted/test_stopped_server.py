"""virtfs mount and umount while the server of the mount is stopped: a sentence after some seconds; Ctrl-C works."""

import os
import signal
import subprocess
import sys

import pytest
from harness.fixtures import Alone
from harness.forks import Program
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, PROJECT, Mount

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
    assert f'"{DIR}" is unmounted, but its server may be stopped' in line
    assert f"pid {stopped.server.pid}" in line
    os.kill(stopped.server.pid, signal.SIGCONT)
    finished(program)
    assert program.returncode == 0
    assert stopped.ended() == 0


@pytest.mark.parametrize("command", ["mount", "umount"])
def test_ctrl_c(stopped: Mount, command: str) -> None:
    program = virtfs(stopped, command)
    if command == "umount":
        assert program.stderr is not None
        program.stderr.readline()
    program.send_signal(signal.SIGINT)
    said = finished(program)[1]
    assert program.returncode in (130, -signal.SIGINT)  # the latter before Python has installed its handler
    assert "Traceback" not in said
    os.kill(stopped.server.pid, signal.SIGCONT)
    if command == "umount":
        assert stopped.ended() == 0
