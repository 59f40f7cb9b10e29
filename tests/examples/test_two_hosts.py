"""two_hosts.sh joins two hosts in three ways, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.places import Place, finished
from harness.serving import ENVIRONMENT

TWO_HOSTS = str(Path(__file__).parents[2] / "examples/two_hosts.sh")
_PATH = {**ENVIRONMENT, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
_PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.mark.parametrize("way", ["vxlan", "cable", "stream"])
def test_two_hosts(elsewhere: Place, way: str) -> None:
    running = elsewhere.start(TWO_HOSTS, way, env=_PATH, **_PIPES)
    output, complaint = finished(running, 60)
    assert (running.returncode, complaint) == (0, "")
    addresses = ["10.0.3.2", "10.0.3.4"] if way == "vxlan" else ["10.0.3.2"]
    assert output.splitlines() == [f"east reaches {address} by {way}" for address in addresses]
    _nothing_left(elsewhere)


def test_a_kill_ends_all_of_it(elsewhere: Place) -> None:
    running = elsewhere.start(TWO_HOSTS, "vxlan", env=_PATH, **_PIPES)
    assert running.stdout is not None
    assert running.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    assert "10.0.3.4" not in finished(running)[0]  # finished() waits until no program has the pipe open
    _nothing_left(elsewhere)


def test_usage(elsewhere: Place) -> None:
    running = elsewhere.start(TWO_HOSTS, "pigeon", **_PIPES)
    assert finished(running) == ("", "usage: two_hosts.sh vxlan|cable|stream\n")
    assert running.returncode == 2


def test_an_ordinary_user_is_told_of_the_way_without_root(elsewhere: Place) -> None:
    running = elsewhere.start(TWO_HOSTS, "cable", uid=65534, **_PIPES)
    said = f"two_hosts.sh: only root may do this: use `virtfs shell {TWO_HOSTS} cable`\n"
    assert (*finished(running), running.returncode) == ("", said, 1)


def _nothing_left(place: Place) -> None:
    assert (place.links(), place.mounts(), place.ip("netns list")) == (["lo"], [], "")
