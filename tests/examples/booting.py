"""Runs pxe.sh, which boots a virtual machine from the network."""

import subprocess
from pathlib import Path

from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, Mount

from .left import nothing_left

PXE = str(Path(__file__).parents[2] / "examples/pxe.sh")
_QEMU_SAYS = "TUNSETOFFLOAD ioctl() failed: Bad address\n"  # of a frame file, which has no offloads


def start(mount: Mount, *words: str, directory: str = DIR) -> "subprocess.Popen[str]":
    """Start pxe.sh, with its temporary files in /mnt."""
    pipe = subprocess.PIPE
    return mount.start(PXE, directory, *words, env={**ENVIRONMENT, "TMPDIR": "/mnt"}, stdout=pipe, stderr=pipe)


def boots(mount: Mount, *way: str) -> None:
    """Assert that the machine boots over this way to the wire."""
    running = start(mount, *way)
    output, complaint = finished(running, 100)
    assert (running.returncode, complaint.replace(_QEMU_SAYS, "")) == (0, "")
    assert_booted(output)
    assert_clean(mount)


def assert_booted(output: str) -> None:
    """Assert that this output ends as it should."""
    *_, last = output.splitlines()
    assert last.startswith("booted from 10.0.66.1 as 10.0.66.1"), output


def assert_clean(mount: Mount) -> None:
    """Assert that pxe.sh has left nothing."""
    nothing_left(mount)
    assert mount.sh("ls /mnt") == "virt\n"
    assert len(mount.processes()) == 2  # the server and the agent
