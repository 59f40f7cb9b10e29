"""The examples on captures, replays, cables and hex do what their head comments say."""

import importlib.util
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from harness import compiled
from harness.places import DIR, finished
from harness.serving import Mount, Virt, frame
from harness.waiting import until, until_it_waits

EXAMPLES = Path(__file__).parents[2] / "examples"
PIPE = subprocess.PIPE


def test_capture(virt: Virt) -> None:
    """capture.sh prints a line for each frame as it passes, in both directions."""
    watcher = virt.mount.start(
        str(EXAMPLES / "capture.sh"), f"{DIR}/{virt.name}", stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    assert watcher.stdout is not None
    until(lambda: _tshark(virt.mount), "tshark runs")
    until_it_waits(_tshark(virt.mount)[0])
    virt.host_sends(frame(60))
    assert re.match(rf"{virt.name} > b2:0a:00:0b:0e:01 .* 60 ", line := watcher.stdout.readline().strip()), line
    virt.open(os.O_WRONLY).write(frame(61))
    assert re.match(rf"{virt.name} < b2:0a:00:0b:0e:01 .* 61 ", line := watcher.stdout.readline().strip()), line
    complaint = interrupted(virt.mount, watcher)
    assert complaint == ""


def test_capture_of_all_with_a_filter(virt: Virt) -> None:
    virt.set("inet 10.5.0.1/24")
    watcher = virt.mount.start(str(EXAMPLES / "capture.sh"), DIR, "-Y", "arp", stdout=PIPE, start_new_session=True)
    assert watcher.stdout is not None
    until(lambda: _tshark(virt.mount), "tshark runs")
    until_it_waits(_tshark(virt.mount)[0])
    virt.host_sends(frame(60))
    virt.mount.sh("ping -q -c1 -W1 10.5.0.2 || true")
    line = watcher.stdout.readline()
    assert line.strip().startswith(f"{virt.name} > {virt.read('tap/address')}")
    assert "Who has 10.5.0.2?" in line
    interrupted(virt.mount, watcher)


def test_an_echo_over_stream(virt: Virt, tmp_path: Path) -> None:
    """stream.c sends each frame back to its sender, in order, and ends when the interface goes down."""
    program = str(compiled.example("stream", tmp_path))
    echo = virt.mount.start(program, f"{DIR}/{virt.name}", stderr=PIPE)
    until(lambda: "stream" in virt.read("clients"), "it has opened stream")
    sent = [frame(60 + number, number) for number in range(100)]
    virt.listen()
    virt.host_sends(*sent, frame(1514, 101))
    address = bytes.fromhex(virt.read("address").replace(":", ""))
    for one in (*sent, frame(1514, 101)):
        assert virt.host_gets() == one[6:12] + address + one[12:]
    virt.set("down")
    assert finished(echo)[1] == f"stream: {DIR}/{virt.name}: Host is down\n"


def test_the_echo_says_why_it_cannot_open_the_interface(virt: Virt, tmp_path: Path) -> None:
    """It takes a number or a directory, as the responders do, and prints the sentence of virtfs."""
    program = str(compiled.example("stream", tmp_path))
    reader = virt.open()
    busy = f"{virt.unit}: {virt.name}/stream: {virt.name} is already open for reading (exclusive read; see clients)"
    for name, status, said in (
        (str(virt.unit), 1, busy),
        (DIR, 1, f"{DIR}: no such interface: give its number, or the path of its directory"),
        ("fd=3", 2, "fd=3: usage: stream NUMBER|DIRECTORY (the tap itself, fd=N, has no stream)"),
        ("", 2, ": usage: stream NUMBER|DIRECTORY (the tap itself, fd=N, has no stream)"),
    ):
        echo = virt.mount.start(program, name, stderr=PIPE)
        assert (finished(echo)[1], echo.returncode) == (f"stream: {said}\n", status)
    reader.close()
    echo = virt.mount.start(program, str(virt.unit), stderr=PIPE)
    until(lambda: "stream" in virt.read("clients"), "it has opened stream")
    echo.kill()
    finished(echo)


def interrupted(mount: Mount, watcher: subprocess.Popen[str]) -> str:
    """Send Ctrl-C to capture.sh, and wait for its end. Returns its standard error.

    tshark checks for a signal before each read, so a signal between the check and the read waits for another frame.
    """
    until_it_waits(_tshark(mount)[0])
    os.killpg(watcher.pid, signal.SIGINT)
    return finished(watcher)[1]


def _tshark(mount: Mount) -> list[int]:
    return [pid for pid, line in mount.processes().items() if line.startswith("tshark")]


def recording(mount: Mount, apart: float, *, first: int = 60) -> str:
    """Write a pcap file of five frames, `apart` seconds apart. Returns its path. first: length of the first frame."""
    blocks = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number in range(5):
        size = 60 if number else first
        blocks.append(struct.pack("<IIII", 100, int(number * apart * 1e6), size, size) + frame(size, number))
    mount.root.call(Path.write_bytes, Path("/mnt/some.pcap"), b"".join(blocks))
    return "/mnt/some.pcap"


@pytest.mark.parametrize("pace", [["0"], ["4"], []])
def test_replay(virt: Virt, pace: list[str]) -> None:
    path = recording(virt.mount, 0.1)
    virt.write("pace", "3\n")
    running = virt.mount.start(str(EXAMPLES / "replay.sh"), path, f"{DIR}/{virt.name}", *pace, stdout=PIPE)
    assert [virt.host_gets() for _ in range(5)] == [frame(60, number) for number in range(5)]
    assert finished(running)[0] == "5 frames sent\n"
    assert running.returncode == 0
    assert virt.read("pace") == "3"


def test_replay_ends_with_ctrl_c(virt: Virt) -> None:
    path = recording(virt.mount, 0.2)
    running = virt.mount.start(
        str(EXAMPLES / "replay.sh"), path, f"{DIR}/{virt.name}", "0.001", stdout=PIPE, start_new_session=True
    )
    until(lambda: virt.count("tx_frames") == 1, "the first frame is sent")
    os.killpg(running.pid, signal.SIGINT)
    output, _ = finished(running)
    assert (running.returncode, output) == (130, "1 frames sent\n")
    assert virt.read("pace") == "0"


def replay(virt: Virt, *words: str) -> tuple[int | None, str, str]:
    """Run replay.sh in the mount. Returns its status, output and errors."""
    script = f'cd {DIR}; exec "$0" "$@"'
    running = virt.mount.start("sh", "-c", script, str(EXAMPLES / "replay.sh"), *words, stdout=PIPE, stderr=PIPE)
    output, complaint = finished(running)
    return running.returncode, output, complaint


def test_replay_says_what_is_wrong(virt: Virt) -> None:
    virt.mount.sh("echo no capture at all >/mnt/some.txt")
    status, output, complaint = replay(virt, "/mnt/some.txt", virt.name)
    assert (status, output) == (1, "0 frames sent\n")
    assert "byte 0" in complaint


def test_replay_gives_the_reason_of_its_own_failure(virt: Virt) -> None:
    """The mount still has the last error of another command."""
    virt.mount.refused("echo frobnicate >ctl")
    assert replay(virt, "/mnt/none.pcap", virt.name) == (1, "", "replay.sh: cannot read /mnt/none.pcap\n")
    assert replay(virt, "/mnt", virt.name) == (1, "", "replay.sh: cannot read /mnt\n")
    path = recording(virt.mount, 0.1)
    assert replay(virt, path, "virt77") == (1, "", "replay.sh: cannot write to virt77/inject\n")
    status, output, complaint = replay(virt, path, virt.name, "y")
    assert (status, output) == (1, "")
    assert complaint.endswith(f'{virt.name}/pace: "y" is not a factor such as 0, 0.5 or 2\n')


def test_replay_notices_a_truncated_recording(virt: Virt) -> None:
    path = recording(virt.mount, 0)
    virt.mount.sh(f"head -c 200 {path} >/mnt/cut.pcap")
    status, output, complaint = replay(virt, "/mnt/cut.pcap", virt.name, "0")
    assert (status, output) == (1, "2 frames sent\n")
    assert "truncated" in complaint


def test_replay_reports_frames_that_were_not_sent(virt: Virt) -> None:
    path = recording(virt.mount, 0, first=9000)
    said = "1 frames dropped, 1 of them too long for the mtu\n"
    assert replay(virt, path, virt.name, "0") == (0, "4 frames sent\n", said)


@pytest.mark.timeout(40)
def test_wan(mount: Mount) -> None:
    mount.ctl("create 0")  # the example must not use an interface that exists
    before = mount.read("ctl")
    # With this seed, no ARP frame is lost, which would be sent again after a second.
    words = ["delay", "20ms", "loss", "1%", "seed", "3"]
    running = mount.start(str(EXAMPLES / "wan.sh"), DIR, *words, stdout=PIPE, stderr=PIPE)
    output, complaint = finished(running, 30)
    assert (running.returncode, complaint) == (0, "")
    assert re.search(r"^cable \d+ \d+ delay 20ms loss 1% seed 3$", output, re.M)
    times = [float(time) for time in re.findall(r"time=([\d.]+) ms", output)]
    assert 40 <= min(times) < 80
    sent = re.search(r"([\d.]+) ([KMG])bits/sec +(\d+) +sender", output)
    assert sent, output
    assert sent[2] != "G"
    assert int(sent[3]) > 0, "TCP has retransmitted some segments"
    assert mount.read("ctl") == before
    assert mount.links() == ["lo", "tap0"]


@pytest.mark.timeout(40)
def test_wan_with_another_impairment(mount: Mount) -> None:
    running = mount.start(str(EXAMPLES / "wan.sh"), DIR, "delay", "5ms", "rate", "20mbit", stdout=PIPE, stderr=PIPE)
    output, complaint = finished(running, 30)
    assert (running.returncode, complaint) == (0, "")
    received = re.search(r"([\d.]+) Mbits/sec +receiver", output)
    assert received, output
    assert 12 < float(received[1]) < 20
    assert mount.units() == []


def test_wan_says_what_is_wrong(mount: Mount) -> None:
    running = mount.start(str(EXAMPLES / "wan.sh"), DIR, "wobble", stdout=PIPE, stderr=PIPE)
    _, complaint = finished(running)
    assert running.returncode == 1
    assert "wobble" in complaint
    assert mount.units() == []
    assert mount.links() == ["lo"]


def test_frames(virt: Virt) -> None:
    virt.set("inet 10.6.0.1/24")
    words = [str(EXAMPLES / "frames.sh"), f"{DIR}/{virt.name}", "10.6.0.1", "10.6.0.2"]
    running = virt.mount.start(*words, stdout=PIPE, stderr=PIPE)
    assert finished(running) == (f"10.6.0.1 is at {virt.read('tap/address')}\n", "")
    assert virt.read("address") in virt.mount.ip("neigh show 10.6.0.2")


def test_frames_can_be_given_a_time(virt: Virt) -> None:
    words = [str(EXAMPLES / "frames.sh"), f"{DIR}/{virt.name}", "10.6.0.9", "10.6.0.2"]
    running = virt.mount.start("timeout", "0.5", *words, stdout=PIPE, stderr=PIPE)
    assert finished(running) == ("", "")
    assert running.returncode == 124


def test_scapy_session(virt: Virt) -> None:
    if importlib.util.find_spec("scapy") is None:
        pytest.skip("scapy is not installed")
    virt.set("inet 10.7.0.1/24")
    words = [str(EXAMPLES / "scapy_session.py"), str(virt.unit), "10.7.0.1", "10.7.0.2"]
    running = virt.mount.start(sys.executable, *words, env={**os.environ, "VIRTFS": DIR}, stdout=PIPE, stderr=PIPE)
    output, complaint = finished(running, 20)
    assert running.returncode == 0, complaint
    assert f"10.7.0.1 is at {virt.read('tap/address')}\n" in output
    assert "echo-reply" in output
