"""lab.ctl and lab.sh: one file of commands creates three machines, a bridge and an interface for a user's program."""

import os
import re
import signal
import subprocess
from pathlib import Path

from harness.places import DIR, finished
from harness.serving import Mount

from .left import nothing_left

LAB = Path(__file__).parents[2] / "examples/lab.sh"
CTL = LAB.with_suffix(".ctl")


def test_everybody_reaches_everybody(mount: Mount) -> None:
    running = mount.start(str(LAB), DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, complaint = finished(running, 30)
    assert (running.returncode, complaint) == (0, "")
    ways = re.findall(r"^(lab-\S+) to (\S+): \d+ packets transmitted, 3 received,", output, re.MULTILINE)
    machines = ("lab-left", "lab-middle", "lab-right")
    assert set(ways) == {(machine, f"10.0.7.{number}") for machine in machines for number in (1, 2, 3, 84)}, output
    learned = re.findall(r"^(\S+) (tap8\d)\b", output, re.MULTILINE)
    assert {tap for _, tap in learned} == {"tap81", "tap82", "tap83", "tap84"}
    long_way = re.search(r"lab-left to 10\.0\.7\.3: .* = ([\d.]+)/", output)
    assert long_way
    assert float(long_way[1]) >= 10, "5 ms each way"
    nothing_left(mount)


def test_the_file_alone(mount: Mount) -> None:
    """lab.ctl alone creates the network, and the text that ctl then has recreates it."""
    for machine in ("left", "middle", "right"):
        mount.ip(f"netns add lab-{machine}")
    mount.root.call(Path.write_text, Path("/mnt/lab.ctl"), CTL.read_text())
    mount.sh("cat /mnt/lab.ctl >ctl")
    first = mount.read("ctl")
    assert first.count("create ") == 1 + 3 * 2 + 1
    assert mount.sh("stat -c %U virt84/frame") == "nobody\n"
    ping = "ip netns exec lab-left ping -q -c1 -W2 10.0.7.2"
    assert ", 0% packet loss" in mount.sh(ping)
    for name in (*mount.units(), "bridge7"):
        mount.ctl(f"destroy {name}")
    mount.write("ctl", f"{first}\n")
    assert mount.read("ctl") == first
    assert ", 0% packet loss" in mount.sh(ping)
    for name in (*mount.units(), "bridge7"):
        mount.ctl(f"destroy {name}")
    for machine in ("left", "middle", "right"):
        mount.ip(f"netns del lab-{machine}")
    nothing_left(mount)


def test_ctrl_c_cleans_up(mount: Mount) -> None:
    running = mount.start(str(LAB), DIR, stdout=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None
    assert "received" in running.stdout.readline()
    os.killpg(running.pid, signal.SIGINT)
    finished(running)
    assert running.returncode == 130
    nothing_left(mount)


def test_what_is_there_already_is_left_alone(mount: Mount) -> None:
    mount.ctl("create 82 description mine")
    running = mount.start(str(LAB), DIR, stderr=subprocess.PIPE)
    _, complaint = finished(running)
    assert (running.returncode, "virt82 already" in complaint) == (1, True), complaint
    assert mount.read("virt82/description") == "mine"
    mount.ctl("destroy 82")
    nothing_left(mount)


def test_a_namespace_that_is_there_already_is_left_alone(mount: Mount) -> None:
    mount.ip("netns add lab-middle")
    running = mount.start(str(LAB), DIR, stderr=subprocess.PIPE)
    finished(running)
    assert running.returncode != 0
    assert mount.ip("netns list").split()[0] == "lab-middle"
    mount.ip("netns del lab-middle")
    nothing_left(mount)


def test_it_says_what_it_lacks(mount: Mount) -> None:
    running = mount.start(str(LAB), "/nowhere", stderr=subprocess.PIPE)
    _, complaint = finished(running)
    assert (running.returncode, "no virtfs at /nowhere" in complaint) == (1, True)
