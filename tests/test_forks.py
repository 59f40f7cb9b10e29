"""Forked programs behave like executed ones: exit status, signals, standard error, namespaces."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import forks
from harness.places import Place
from harness.process import Process
from harness.waiting import PATIENCE, until


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


def test_exit_status_and_standard_error(place: Place) -> None:
    fork = place.fork("virtfs", "mount", "/nowhere", stderr=subprocess.PIPE)
    assert fork.wait(PATIENCE) == fork.poll() == 1
    assert (fork.communicate()[1] or "").startswith('virtfs: "/nowhere"')


def test_it_is_in_its_namespaces_and_leads_a_session(place: Place) -> None:
    process = Process(place)
    for kind in ("net", "mnt"):
        assert os.stat(f"/proc/{process.pid}/ns/{kind}").st_ino == os.stat(f"/proc/{place.pid}/ns/{kind}").st_ino
    assert process.call(os.getsid, 0) == process.pid
    assert process.call(os.getcwd) == "/"
    assert len(process.call(os.listdir, "/proc/self/fd")) == 5, "standard streams, the link, the listing itself"


def test_a_signal_is_its_exit_status(place: Place) -> None:
    process = Process(place)
    fork = process._popen
    assert fork.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.01)
    fork.send_signal(signal.SIGTERM)
    assert fork.wait(PATIENCE) == -signal.SIGTERM
    fork.kill()  # the program has ended, so that this does nothing


def test_a_killed_server_is_replaced(place: Place) -> None:
    process = Process(place)
    server = forks._server
    assert server is not None
    process.kill()
    server._process.kill()
    until(lambda: not server.runs(), "the fork server has ended")
    assert Process(place).call(Path.exists, Path("/proc/self"))
    assert forks._server is not server
