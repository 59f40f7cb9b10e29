"""internet.sh and fetch.py: a program with its own network stack reaches a server through a bridge and a router."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.places import DIR, finished
from harness.serving import Mount, Virt

from .left import nothing_left

EXAMPLES = Path(__file__).parents[2] / "examples"
INTERNET, FETCH = EXAMPLES / "internet.sh", EXAMPLES / "fetch.py"


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_internet(mount: Mount, named: str) -> None:
    if not (shutil.which("nft") or shutil.which("iptables")):
        pytest.skip("needs nft or iptables")
    mount.ctl("create 0 description not the example's")
    before = mount.read("ctl")
    words = [str(INTERNET), *([DIR] if named == "argument" else [])]
    pipe = subprocess.PIPE
    running = mount.start(*words, env={**os.environ, "VIRTFS": DIR}, stdout=pipe, stderr=pipe)
    output, complaint = finished(running, 30)
    assert (running.returncode, complaint) == (0, "")
    assert output.splitlines() == ["hello from the other side", "the server was asked by 192.0.2.254"]
    assert mount.read("ctl") == before
    mount.ctl("destroy 0")
    nothing_left(mount)


def test_without_translation(mount: Mount) -> None:
    """Without nft and iptables a route on the server replaces NAT."""
    hidden = 'command() { [ "$2" != nft ] && [ "$2" != iptables ] && builtin command "$@"; }; export -f command'
    running = mount.shell(f"{hidden}; exec {INTERNET} {DIR}", stdout=subprocess.PIPE)
    output, _ = finished(running, 30)
    assert output.splitlines() == ["hello from the other side", "the server was asked by 10.0.7.2"]
    nothing_left(mount)


def test_ctrl_c_cleans_up(mount: Mount) -> None:
    running = mount.start(str(INTERNET), DIR, stdout=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None
    assert running.stdout.readline()
    os.killpg(running.pid, signal.SIGINT)
    finished(running)
    nothing_left(mount)


def test_a_page_of_many_segments(mount: Mount) -> None:
    """The page is larger than a TCP window, and the wire loses frames."""
    mount.ctl("create 3 up inet 10.0.3.1/24 impair in loss 1% seed 7")
    mount.sh("mkdir /mnt/site && seq 20000 >/mnt/site/index.html")
    web = mount.start(
        sys.executable, "-um", "http.server", "--directory", "/mnt/site", "--bind", "10.0.3.1", "80",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert web.stdout is not None
    assert web.stdout.readline().startswith("Serving")
    fetch = f"VIRTFS={DIR} {FETCH} 3 10.0.3.2 10.0.3.1 10.0.3.1"
    assert mount.sh(f"{fetch} | cmp - /mnt/site/index.html && echo same", seconds=40) == "same\n"


def test_nobody_there(mount: Mount) -> None:
    virt = Virt(mount, 4, "up inet 10.0.4.1/24")
    assert "the server refuses" in mount.refused(f"{FETCH} {virt.name} 10.0.4.2 10.0.4.1 10.0.4.1")
    assert "the gateway does not answer" in mount.refused(f"{FETCH} {virt.name} 10.0.4.2 10.0.4.9 10.0.4.1")
    lent = ("exec", f"{DIR}/{virt.name}", "--", str(FETCH), "fd=3", "10.0.4.2", "10.0.4.1", "10.0.4.1")
    assert "the server refuses" in finished(mount.fork("virtfs", *lent, stderr=subprocess.PIPE))[1]


def test_it_says_what_it_lacks(mount: Mount) -> None:
    running = mount.start(str(INTERNET), "/nowhere", stderr=subprocess.PIPE)
    _, complaint = finished(running)
    assert (running.returncode, "no virtfs at /nowhere" in complaint) == (1, True)
