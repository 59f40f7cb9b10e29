"""Forked programs behave like executed ones: exit status, signals, standard error, namespaces."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import children, forks
from harness.namespaces import KINDS, processes_in, spaces_of
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


_TESTS = """
import signal
from harness import forks
from harness.serving import Mount

mount = Mount()
mount.ctl("create 3 up")
mount.start("sleep", "1000")
print(mount.pid, forks._server._process.pid, flush=True)
signal.pause()
"""


def test_all_programs_end_with_killed_tests() -> None:
    """The server of a mount, an agent, a tool and the fork server itself end. With them, mount and interface vanish."""
    path = f"{forks.TESTS}:{forks.TESTS.parent}"
    killed = children.start(
        [sys.executable, "-c", _TESTS], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    place, server = map(int, killed.stdout.readline().split())
    # While these are open, no other test can get namespaces with the same numbers.
    held = [os.open(f"/proc/{place}/ns/{kind}", os.O_RDONLY) for kind in KINDS]
    try:
        spaces, end = spaces_of(place), os.pidfd_open(server)
        held.append(end)
        until(lambda: len(processes_in(spaces)) == 4, "the holder, the server, the agent and sleep")
        killed.kill()
        killed.communicate(timeout=PATIENCE)
        until(lambda: not processes_in(spaces), "the end of all programs")
        assert select.select([end], [], [], PATIENCE)[0], "the fork server has not ended"
    finally:
        for descriptor in held:
            os.close(descriptor)
