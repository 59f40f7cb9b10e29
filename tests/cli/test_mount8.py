"""mount(8), umount(8) and fstab(5), with mount.virtfs and virtfs installed in a mount namespace of each test."""

import sys
from pathlib import Path

import pytest
from harness.running import HELPER, run, script

# Fills /sbin with mount.virtfs and the helpers of the package fuse3, and /usr/local/bin with virtfs. /etc/fstab is
# $1/fstab. `table` prints the options, the type and the source of a mount.
_INSTALLED = f"""
cd "$1"
mkdir virt second sbin bin
cp -a /sbin/mount.fuse* sbin/
printf '#!/bin/sh\\nexec {sys.executable} -m virtfs "$@"\\n' >bin/virtfs
printf "#!/bin/sh\\nexec {sys.executable} -c '%s' \\"\\$@\\"\\n" "{HELPER[2]}" >sbin/mount.virtfs
chmod 755 bin/virtfs sbin/mount.virtfs
mount --bind sbin /sbin/
mount --bind bin /usr/local/bin
touch fstab
mount --bind fstab /etc/fstab
table() {{ awk -v d="$PWD/$1" '$5 == d {{ print $6, $(NF-2), $(NF-1) }}' /proc/self/mountinfo; }}
"""


def told(text: str, directory: Path) -> list[str]:
    """Run a script with this installation. Returns the lines of its output and its errors."""
    done = script(f"{_INSTALLED}\nexec 2>&1\n{text}", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.replace(str(directory), "HERE") for line in done.stdout.splitlines()]


def test_both_types_in_fstab(tmp_path: Path) -> None:
    """`mount -a` skips mounts that exist. `umount -t` compares with the type in the kernel's mount table."""
    lines = told(
        """
        echo "virtfs $PWD/virt virtfs state=$PWD/state,allow_other,nofail,_netdev,x-systemd.automount 0 0" >fstab
        echo "lab $PWD/second fuse.virtfs ro,noatime,max_virts=12 0 0" >>fstab
        mount -a
        mount -a
        table virt; table second
        findmnt -n -l -o TARGET -t fuse.virtfs | sort -r
        mountpoint -q virt
        grep -o '"options": "[^"]*"' second/status.json
        umount -t virtfs -a
        table second
        umount -t fuse.virtfs -a
        table virt; table second
        mount virt
        table virt
        umount "$PWD/virt"
        """,
        tmp_path,
    )
    virt = "rw,nosuid,nodev,relatime fuse.virtfs virtfs"
    lab = "ro,nosuid,nodev,noatime fuse.virtfs lab"
    assert lines == [virt, lab, "HERE/virt", "HERE/second", '"options": "max_virts=12"', lab, virt]


def test_a_mount_that_no_other_process_sees_gets_a_warning(tmp_path: Path) -> None:
    """mount(8) sees the mount, but ends at once."""
    (line,) = told('unshare --mount mount -t virtfs virtfs "$PWD/virt"', tmp_path)
    assert line.startswith('mount.virtfs: warning: no other process sees the mount at "HERE/virt"')


@pytest.mark.parametrize("type_", ["virtfs", "fuse.virtfs"])
def test_by_hand_as_either_type(tmp_path: Path, type_: str) -> None:
    lines = told(
        f"""
        mount -t {type_} -o max_virts=2,noexec virtfs virt
        table virt
        mount -t {type_} virtfs virt || echo "status $?"
        umount virt
        mount -t {type_} -o colour virtfs virt || echo "status $?"
        mount -t {type_} -o state=lab.state virtfs virt || echo "status $?"
        mount -r -n -t {type_} virtfs virt
        table virt
        umount virt
        """,
        tmp_path,
    )
    assert lines == [
        "rw,nosuid,nodev,noexec,relatime fuse.virtfs virtfs",
        'mount.virtfs: "HERE/virt" is busy: virtfs is already mounted there',
        "status 32",
        'mount.virtfs: unknown mount option "colour": "virtfs mount --help" lists all',
        "status 1",
        'mount.virtfs: mount option "state=lab.state": give the absolute path, because mount(8) and systemd '
        "do not run in your working directory",
        "status 1",
        "ro,nosuid,nodev,relatime fuse.virtfs virtfs",
    ]


def test_a_remount_without_the_helper_and_one_with_it(tmp_path: Path) -> None:
    """mount(8) does not run mount.virtfs if both source and directory are given, and no type."""
    lines = told(
        """
        mount -t virtfs none virt
        mount -o remount,ro,max_virts=5 none "$PWD/virt"
        table virt
        mount -o remount,rw virt
        table virt
        virtfs umount virt
        """,
        tmp_path,
    )
    assert lines == ["ro,relatime fuse.virtfs none", "rw,nosuid,nodev,relatime fuse.virtfs none"]


def test_read_only_and_remounted(tmp_path: Path) -> None:
    """The kernel enforces `ro`: no file opens for writing. The server still recreates what the state file describes."""
    lines = told(
        """
        echo 'create 3 up' >state
        echo "virtfs $PWD/virt virtfs ro,state=$PWD/state,max_virts=16 0 0" >fstab
        mount virt
        cut -d' ' -f1,2,7 virt/ctl
        for what in 'echo create 4 >virt/ctl' 'echo 1400 >virt/virt3/mtu' 'chmod 660 virt/virt3/frame'; do
            sh -c "$what" && echo "it did: $what"
        done
        mount -o remount,rw virt
        echo virt3 mtu 1400 >virt/ctl
        mount -o remount virt
        table virt
        cat virt/virt3/mtu
        mount -o remount,max_virts=17 virt || echo "status $?"
        mount -o remount,uid=3 virt || echo "status $?"
        table virt
        : >fstab
        mount -o remount,rw,noexec virt
        table virt
        virtfs umount virt
        """,
        tmp_path,
    )
    read_only = "ro,nosuid,nodev,relatime fuse.virtfs virtfs"
    assert lines == [
        "create 3 up",
        "sh: 1: cannot create virt/ctl: Read-only file system",
        "sh: 1: cannot create virt/virt3/mtu: Read-only file system",
        "chmod: changing permissions of 'virt/virt3/frame': Read-only file system",
        read_only,
        "1400",
        'mount.virtfs: cannot change "max_virts=16" to "max_virts=17" while "HERE/virt" is mounted: '
        'run "virtfs umount HERE/virt", then mount it again',
        "status 32",
        'mount.virtfs: mount option "uid=3": set the owner per interface: '
        '"virtN owner USER" and "virtN group GROUP" in ctl, or chown',
        "status 1",
        read_only,
        "rw,nosuid,nodev,noexec,relatime fuse.virtfs virtfs",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-N", "/proc/1/ns/mnt"], "-N is not supported: use nsenter"),
        (["-Q"], "unrecognized arguments: -Q"),
        ([], None),
    ],
)
def test_the_helper_refuses_in_one_line(tmp_path: Path, words: list[str], sentence: str | None) -> None:
    arguments = ["none", str(tmp_path), *words] if sentence else []
    done = run([*HELPER, *arguments])
    assert done.returncode == 1
    assert done.stderr.startswith(f"mount.virtfs: {sentence or 'the following arguments are required'}")
    assert done.stderr.count("\n") == 1


def test_what_mount_may_pass_is_understood(tmp_path: Path) -> None:
    words = ["-sfv", "-n", "-i", "-r", "-w", "-t", "fuse.virtfs", "-o", "rw,user=alice,X-mount.mkdir", "-o", "nofail"]
    done = run([*HELPER, "none", str(tmp_path), *words])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
