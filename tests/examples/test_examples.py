"""The examples do what their head comments say."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.places import DIR, Place, finished
from harness.serving import ENVIRONMENT, Mount, Virt, frame
from harness.waiting import PATIENCE, until, until_it_waits

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_many_hosts(elsewhere: Place) -> None:
    """Another mount may have interfaces."""
    elsewhere.ip("tuntap add tap2 mode tap")
    running = elsewhere.start(
        sys.executable,
        str(EXAMPLES / "many_hosts.py"),
        "3",
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, complaint = finished(running, 30)
    assert (running.returncode, complaint) == (0, "")
    lines = [line.split() for line in output.splitlines()]
    assert [line[:3] for line in lines] == [
        ["virt0", "answers", "10.7.1.2:"],
        ["virt1", "answers", "10.7.2.2:"],
        ["virt3", "answers", "10.7.3.2:"],
    ]
    assert all(int(line[3]) >= 4 for line in lines)  # an ARP request, three echo requests, or more
    assert (elsewhere.mounts(), elsewhere.links()) == ([], ["lo", "tap2"])


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_cable(mount: Mount, named: str) -> None:
    mount.ctl("create 0")  # the example must not use an interface that exists
    before = mount.read("ctl")
    words = [str(EXAMPLES / "cable.sh"), *([DIR] if named == "argument" else [])]
    pipe = subprocess.PIPE
    running = mount.start(*words, env={**os.environ, "VIRTFS": DIR}, stdout=pipe, stderr=pipe)
    output, complaint = finished(running, 20)
    assert (running.returncode, complaint) == (0, "")
    assert "3 received" in output
    assert mount.read("ctl") == before
    assert mount.links() == ["lo", "tap0"]
    assert len(mount.processes()) == 2  # the server and the agent


@pytest.mark.timeout(20)
def test_cable_ends_with_ctrl_c(mount: Mount) -> None:
    running = mount.start(str(EXAMPLES / "cable.sh"), DIR, stdout=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None
    while "64 bytes" not in (line := running.stdout.readline()):
        assert line
    os.killpg(running.pid, signal.SIGINT)
    finished(running)
    assert mount.units() == []
    assert mount.links() == ["lo"]


def test_ctrl_c_does_not_cut_the_cleaning_up_short(mount: Mount) -> None:
    """A second Ctrl-C arrives while the script is ending."""
    running = mount.start(str(EXAMPLES / "cable.sh"), DIR, stdout=subprocess.PIPE)
    until(lambda: len(mount.units()) == 2, "the two ends")
    until(lambda: len(mount.units()) < 2, "the cleaning up begins")
    while running.poll() is None:
        os.killpg(running.pid, signal.SIGINT)
    finished(running)
    assert mount.units() == []
    assert mount.links() == ["lo"]


def test_cable_says_what_it_lacks(mount: Mount) -> None:
    running = mount.start(str(EXAMPLES / "cable.sh"), "/nowhere", stderr=subprocess.PIPE)
    _, complaint = finished(running)
    assert running.returncode == 1
    assert "no virtfs at /nowhere" in complaint


@pytest.mark.parametrize("name", ["cable.sh", "internet.sh", "lab.sh", "pxe.sh", "wan.sh"])
def test_a_script_that_needs_root_names_the_way_without(mount: Mount, name: str) -> None:
    """The owner of an interface runs it in root's mount. The kernel refuses the open, so last_error has no reason."""
    mount.ctl("create 1 up owner nobody")
    script = str(EXAMPLES / name)
    running = mount.start(script, DIR, uid=65534, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = f"{name}: only root may write {DIR}/ctl: use `virtfs shell {script}`\n"
    assert (*finished(running), running.returncode) == ("", said, 1)


@pytest.mark.parametrize("name", ["cable.sh", "internet.sh", "lab.sh", "pxe.sh", "wan.sh"])
def test_a_script_in_a_shell_names_the_mount_of_the_shell(mount: Mount, name: str) -> None:
    """`virtfs shell cable.sh /mnt/virt` would be sent back into the shell that it is in already."""
    mount.sh("mkdir /mnt/shell && touch /mnt/shell/ctl && chown nobody /mnt/shell/ctl")
    for other, problem in ((DIR, f"only root may write {DIR}/ctl"), ("/nowhere", "no virtfs at /nowhere")):
        running = mount.start(
            str(EXAMPLES / name),
            other,
            uid=65534,
            env={**os.environ, "VIRTFS": "/mnt/shell"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said = f"{name}: {problem}: it is not the mount of this shell: leave it out\n"
        assert (*finished(running), running.returncode) == ("", said, 1)
    mount.sh("rm -r /mnt/shell")


def test_a_script_of_root_in_a_shell_says_that_it_uses_another_mount(mount: Mount) -> None:
    """The taps of the other mount are in another network namespace, so the script may fail later."""
    mount.sh("mkdir /mnt/shell && touch /mnt/shell/ctl")
    settings = {**os.environ, "VIRTFS": "/mnt/shell"}
    running = mount.start(str(EXAMPLES / "cable.sh"), DIR, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, said = finished(running)
    assert said == f"cable.sh: {DIR}: it is not the mount of this shell: leave it out\n"
    assert "3 received" in output
    mount.sh("rm -r /mnt/shell")


def test_responder(virt: Virt) -> None:
    virt.set(f"inet 10.3.{virt.unit}.1/24")
    address = f"10.3.{virt.unit}.2"
    responder = virt.mount.start(
        sys.executable, str(EXAMPLES / "responder.py"), f"{DIR}/{virt.name}", address, stderr=subprocess.PIPE
    )
    for size in (0, 1, 56, 1472):
        # -w with -c: succeeds after two replies
        virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} -s {size} {address}")
    virt.mount.sh(f"arping -q -c1 -w{PATIENCE:g} -I {virt.tap} {address}")
    assert virt.read("address") in virt.mount.ip(f"neigh show {address}")
    for length in (14, 20, 30):
        virt.host_sends(frame(length)[:12] + b"\x08\x06" + frame(length)[14:])
        virt.host_sends(frame(length)[:12] + b"\x08\x00" + frame(length)[14:])
    virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} {address}")
    assert "100% packet loss" in virt.mount.sh(f"ping -q -c1 -W1 10.3.{virt.unit}.3 || true")
    virt.mount.ctl(f"destroy {virt.unit}")
    _, complaint = finished(responder)
    assert (responder.returncode, "No such device" in complaint) == (1, True), complaint


def test_sniff(virt: Virt) -> None:
    """sniff.sh prints each frame on a line as it arrives, and loses none."""
    sniffer = virt.mount.start(str(EXAMPLES / "sniff.sh"), f"{DIR}/{virt.name}/frame", stdout=subprocess.PIPE)
    readers = _reader(virt)
    until_it_waits(readers)
    sent = [frame(14), frame(60, 1), frame(1514, 2), frame(100, 3)]
    virt.host_sends(*sent)
    assert sniffer.stdout is not None
    assert [sniffer.stdout.readline() for _ in sent] == [f"{one.hex()}\n" for one in sent]
    virt.mount.ctl(f"destroy {virt.unit}")
    finished(sniffer)


def _reader(virt: Virt) -> int:
    """Return the process id of the dd(1) that sniff.sh has started."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for pid, line in virt.mount.processes().items() if line.startswith("dd ")]
        return bool(found)

    until(look, "sniff.sh reads")
    return found[0]
