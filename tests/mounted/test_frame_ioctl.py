"""ioctl(2) on frame, and a program for /dev/net/tun that uses a frame file instead."""

import errno
import os
import struct
import subprocess
import sys

import pytest
from harness import programs
from harness.places import finished
from harness.process import fails
from harness.serving import Virt, frame
from harness.waiting import until_it_waits

TAPGIFNAME = 0x80286500
FIONREAD = 0x541B
TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNGETIFF = 0x800454D2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000

TAP_PROGRAM = """
import fcntl, os, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
frame = os.read(tun, 2048)
os.write(tun, frame[6:12] + frame[:6] + frame[12:])
print(len(frame))
"""


def test_tapgifname(virt: Virt) -> None:
    """TAPGIFNAME of tap(4) returns the interface's name."""
    file = virt.open()
    assert file.ioctl(TAPGIFNAME, bytes(40)).split(b"\0")[0].decode() == virt.tap
    virt.mount.ip(f"link set {virt.tap} name elsewise")
    assert file.ioctl(TAPGIFNAME, bytes(40)).split(b"\0")[0] == b"elsewise"


@pytest.mark.parametrize("length", [14, 60, 1514])
def test_fionread_straight_after_fstat(virt: Virt, length: int) -> None:
    file = virt.open()
    assert file.call(programs.size_after_stat, FIONREAD) == 1  # shorter than any frame: no frame is waiting
    virt.host_sends(frame(length), frame(99))
    assert file.call(programs.size_after_stat, FIONREAD) == length
    assert file.read() == frame(length)
    assert file.call(programs.size_after_stat, FIONREAD) == 99


def test_tun_features(virt: Virt) -> None:
    answer = virt.open().ioctl(TUNGETFEATURES, bytes(4))
    assert struct.unpack("<I", answer)[0] & (IFF_TAP | IFF_NO_PI) == IFF_TAP | IFF_NO_PI


def test_tun_names(virt: Virt) -> None:
    """FUSE passes only 4 bytes of the argument, so that only the start of a name is compared or returned."""
    file = virt.open()
    for name in (virt.tap, "tap%d", ""):
        file.ioctl(TUNSETIFF, struct.pack("<16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    assert file.ioctl(TUNGETIFF, bytes(40))[:4] == virt.tap.encode()[:4]


ONE, TWELVE, FOUR, MANY, NONE = (struct.pack("<i", number) for number in (1, 12, 4, 10_000, 0))
AS_OF_A_TAP = [  # linux/if_tun.h: all with a pointer, made in this order, so that values set are read back
    ("TUNGETSNDBUF", 0x800454D3, bytes(4)),
    ("TUNSETSNDBUF", 0x400454D4, MANY),
    ("TUNGETSNDBUF", 0x800454D3, bytes(4)),
    ("TUNSETSNDBUF 0", 0x400454D4, NONE),
    ("TUNGETVNETHDRSZ", 0x800454D7, bytes(4)),
    ("TUNSETVNETHDRSZ", 0x400454D8, TWELVE),
    ("TUNGETVNETHDRSZ", 0x800454D7, bytes(4)),
    ("TUNSETVNETHDRSZ 4", 0x400454D8, FOUR),
    ("TUNGETVNETLE", 0x800454DD, bytes(4)),
    ("TUNSETVNETLE", 0x400454DC, ONE),
    ("TUNGETVNETLE", 0x800454DD, bytes(4)),
    ("TUNSETQUEUE", 0x400454D9, struct.pack("<16sH22x", b"", 0x0400)),
    ("TUNGETFILTER", 0x801054DB, bytes(16)),
    ("one to come", 0x400454FA, NONE),
]


def test_what_tap_programs_ask_is_answered_as_by_a_tap(virt: Virt) -> None:
    """They are answered as by a kernel tap without offloads, multiple queues and headers."""
    file = virt.open()
    answers = file.call(programs.ioctls, AS_OF_A_TAP)
    assert answers == file.process.call(programs.ioctls_of_a_tap, "compared", AS_OF_A_TAP)


def test_each_descriptor_has_settings_of_its_own(virt: Virt) -> None:
    first, second = virt.open(), virt.open(os.O_WRONLY)
    first.ioctl(0x400454D8, TWELVE)
    assert [file.ioctl(0x800454D7, bytes(4)) for file in (first, second)] == [TWELVE, struct.pack("<i", 10)]


def test_an_integer_for_an_argument_is_efault(virt: Virt) -> None:
    """The kernel treats it as an address before it asks the server (fs/fuse/ioctl.c). QEMU prints a warning for it."""
    file = virt.open()
    with fails(errno.EFAULT):
        file.process.call(programs.ioctl_number, file.fd, 0x400454D0, 0)  # TUNSETOFFLOAD


def test_an_unknown_one(virt: Virt) -> None:
    with fails(errno.ENOTTY):
        virt.open().ioctl(0x5401, bytes(60))  # TCGETS, which isatty(3) uses


def test_a_terminal_it_is_not(virt: Virt) -> None:
    assert virt.mount.refused(f"test -t 0 <>{virt.name}/frame") == ""


def test_a_tap_program_runs_as_it_is(virt: Virt) -> None:
    """frame is bind-mounted over /dev/net/tun in the program's own mount namespace."""
    program = virt.mount.start(
        "unshare", "--mount", "--propagation", "private", "sh", "-c",
        f"mount --bind /mnt/virt/{virt.name}/frame /dev/net/tun && exec \"$@\"",
        "sh", sys.executable, "-c", TAP_PROGRAM, virt.tap,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    until_it_waits(program.pid)
    virt.host_sends(frame(300))
    assert finished(program) == ("300\n", "")
    assert program.returncode == 0
    sent = frame(300)
    assert virt.host_gets() == sent[6:12] + sent[:6] + sent[12:]
    assert os.stat("/dev/net/tun").st_rdev
