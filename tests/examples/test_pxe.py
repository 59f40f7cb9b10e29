"""pxe.sh boots a virtual machine by DHCP and TFTP. boots.py has more ways to the wire."""

import os
import signal

import pytest
from harness.places import DIR, finished
from harness.running import run
from harness.serving import Mount
from harness.users import HIS_VIRTFS, ONE_ID

from .booting import PXE, assert_booted, assert_clean, boots, start

_SLOW = pytest.mark.timeout(120)


@_SLOW
def test_it_boots(mount: Mount) -> None:
    boots(mount)


@_SLOW
def test_it_boots_without_root() -> None:
    done = run([*ONE_ID, *HIS_VIRTFS, "shell", "sh", "-c", '/mnt/checkout/examples/pxe.sh "$VIRTFS" bind'], seconds=100)
    assert done.returncode == 0, done.stderr
    assert_booted(done.stdout)


def test_ctrl_c_cleans_up(mount: Mount) -> None:
    running = start(mount)
    assert running.stdout is not None
    assert "SeaBIOS" in running.stdout.readline()
    os.killpg(running.pid, signal.SIGINT)
    finished(running)  # waits for all programs that have its output
    assert running.returncode == 130
    assert_clean(mount)


def test_it_says_what_is_wrong(mount: Mount) -> None:
    for words, directory, status, complaint in (
        (["pigeon"], DIR, 2, "usage: pxe.sh DIRECTORY exec|vnet|tun|frame|bind [OPTION OF QEMU ...]\n"),
        ([], "/nowhere", 1, "pxe.sh: no virtfs at /nowhere (virtfs mount /nowhere)\n"),
        (["frame", "-nonsense"], DIR, 1, "qemu-system-x86_64: -nonsense: invalid option\n"),
    ):
        running = start(mount, *words, directory=directory)
        assert finished(running) == ("", complaint)
        assert running.returncode == status
        assert_clean(mount)


def test_a_program_is_missing(mount: Mount) -> None:
    hidden = 'command() { [ "$2" != dnsmasq ] && builtin command "$@"; }; export -f command'
    said = mount.refused(f"{hidden}; exec {PXE} {DIR}")
    assert said == "pxe.sh: dnsmasq is not installed\n"
