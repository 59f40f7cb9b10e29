"""A server keeps the capabilities that it needs, and no others."""

import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.fixtures import Alone
from harness.process import fails
from harness.serving import PROJECT, Mount
from harness.waiting import Stuck

from virtfs.host.privileges import REASONS, Capability

HIM = 12345  # an ordinary user


def status(task: Path) -> dict[str, str]:
    """Return the fields of a thread's file `status` in /proc."""
    rows = (line.partition(":") for line in (task / "status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def test_every_thread_has_these_alone(mount: Mount) -> None:
    allowed = int(status(Path("/proc/self"))["CapBnd"], 16)
    kept = f"{allowed & sum(1 << number for number in Capability):016x}"
    mount.ctl("create 3 up")  # starts threads
    for task in Path(f"/proc/{mount.server.pid}/task").iterdir():
        now = status(task)
        assert {now["CapPrm"], now["CapEff"], now["CapBnd"]} == {kept}
        assert {now["CapInh"], now["CapAmb"]} == {f"{0:016x}"}
        assert (now["NoNewPrivs"], now["Umask"]) == ("1", "0077")


def test_a_foreground_server_closes_inherited_descriptors(alone: Alone) -> None:
    mount = alone(before=["bash", "-c", 'exec 9</etc/hostname 200</etc/hostname; exec "$@"', "bash"])
    assert "/etc/hostname" not in mount.descriptors()


def giving_to_a_user(mount: Mount) -> str:
    mount.ctl("create 3")
    with fails(errno.EPERM):
        mount.ctl(f"virt3 owner {HIM}")
    assert "owner" not in mount.read("ctl")
    return mount.read("last_error")


def setting_the_mode_of_a_fifo(mount: Mount) -> str:
    mount.ctl(f"create 3 owner {HIM}")
    with fails(errno.EPERM):
        mount.ctl("virt3 mode 0640")
    return mount.read("last_error")


def capturing(mount: Mount) -> str:
    mount.ctl("create 3 up")
    with fails(errno.EPERM):
        mount.root.open("virt3/pcap", os.O_RDONLY)
    return mount.read("last_error")


def entering_the_namespace_of_a_process(mount: Mount) -> str:
    other = mount.start(
        "unshare",
        "--user",
        "--net",
        "sh",
        "-c",
        "echo; exec cat",
        uid=HIM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "\n"
    with fails(errno.EACCES):
        mount.ctl(f"create 3 netns {other.pid}")
    assert mount.units() == []
    return mount.read("last_error")


NEEDED: dict[str, tuple[Callable[[Mount], str], str]] = {
    "CAP_CHOWN": (giving_to_a_user, "lacks CAP_CHOWN"),
    "CAP_FOWNER": (setting_the_mode_of_a_fifo, "lacks CAP_FOWNER"),
    "CAP_NET_RAW": (capturing, "needs CAP_NET_RAW"),
    "CAP_SYS_PTRACE": (entering_the_namespace_of_a_process, "Permission denied"),
}


@pytest.mark.parametrize("capability", NEEDED)
def test_a_feature_refuses_without(capability: str, alone: Alone) -> None:
    feature, reason = NEEDED[capability]
    assert reason in feature(alone(lacks=capability))


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ("CAP_SYS_ADMIN", "Operation not permitted; a container needs"),
        ("CAP_NET_ADMIN", "taps need CAP_NET_ADMIN and CAP_NET_BROADCAST: root lacks CAP_NET_ADMIN here"),
        ("CAP_NET_BROADCAST", "taps need CAP_NET_ADMIN and CAP_NET_BROADCAST: root lacks CAP_NET_BROADCAST here"),
        ("CAP_DAC_OVERRIDE", "Permission denied"),
    ],
)
def test_a_mount_is_refused_without(capability: str, reason: str, tmp_path: Path) -> None:
    directory = tmp_path / "of_another_user"
    directory.mkdir(0o700)
    os.chown(directory, HIM, HIM)
    with pytest.raises(Stuck, match=reason):
        Mount(f"state={directory}/state", lacks=capability)


def test_each_has_a_reason_and_the_documents_have_the_same() -> None:
    assert set(REASONS) == set(Capability)
    document = (PROJECT / "doc/security.md").read_text()
    assert re.findall(r"^\| (CAP_\w+) \| (.*) \|$", document, re.MULTILINE) == [
        (capability.name, reason) for capability, reason in REASONS.items()
    ]
    manual = (PROJECT / "man/virtfs.1").read_text()
    listed = re.findall(r"CAP_\w+", " ".join(re.findall(r"^\.It (CAP_.*)$", manual, re.MULTILINE)))
    assert sorted(listed) == sorted(capability.name for capability in Capability)
