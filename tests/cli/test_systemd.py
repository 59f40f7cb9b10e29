"""virtfs as a service of systemd: the unit, and the messages to the service manager."""

import re
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import tools
from harness.places import DIR
from harness.serving import ENVIRONMENT, PROJECT, Mount
from harness.waiting import PATIENCE

from virtfs.host.privileges import Capability

UNIT = PROJECT / "systemd/virtfs@.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return a copy of the unit that runs the virtfs of this checkout, as an instance for /mnt/virt."""
    path = tmp_path / "virtfs@mnt-virt.service"
    program = Path(sys.executable).with_name("virtfs")
    path.write_text(UNIT.read_text().replace("=virtfs ", f"={program} "))
    return path


def test_the_unit_is_valid(unit: Path) -> None:
    assert tools.complaints("systemd-analyze", "verify", "--man=no", unit) == ""


def test_its_exposure_is_as_documented(unit: Path) -> None:
    said = tools.run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    documented = re.search(r"exposure of ([0-9.]+)", (PROJECT / "doc/security.md").read_text())
    assert exposure
    assert documented
    # Other versions of systemd add settings to their list.
    assert float(exposure[1]) == pytest.approx(float(documented[1]), abs=0.3)


def test_its_capabilities_are_those_that_a_server_keeps() -> None:
    words = " ".join(re.findall("^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)).split()
    assert sorted(words) == sorted(capability.name for capability in Capability)


def test_it_creates_no_mount_namespace() -> None:
    """A mount made in one would be invisible to others (systemd.exec(5), MountFlags=)."""
    settings = re.findall(r"^(\w+)=", UNIT.read_text(), re.MULTILINE)
    assert not [name for name in settings if re.match("Private|ProtectSystem|ProtectHome|Read|Inacc|Bind|Root", name)]


def test_starts_that_fail_come_to_an_end() -> None:
    """systemd must count more starts than can fail within its interval. A start takes at most a few seconds."""
    settings = dict(re.findall(r"^(\w+)=(\d+)$", UNIT.read_text(), re.MULTILINE))
    slowest = 10  # seconds
    starts, pause = int(settings["StartLimitBurst"]), int(settings["RestartSec"])
    assert starts * (slowest + pause) < int(settings["StartLimitIntervalSec"])


def test_changes_that_cannot_be_saved_do_not_fail_a_stop() -> None:
    """systemd would end the server by SIGTERM all the same, and call the unit failed."""
    assert re.findall("^ExecStop=(.*)$", UNIT.read_text(), re.MULTILINE) == ["virtfs umount --force %f"]


def test_the_mount_point_is_made(tmp_path: Path) -> None:
    tools.run("systemd-tmpfiles", "--create", f"--root={tmp_path}", PROJECT / "systemd/virtfs.conf")
    assert (tmp_path / "mnt/virt").is_dir()


def test_the_wheel_has_these_files() -> None:
    files = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    listed = {name for names in files.values() for name in names if name.startswith("systemd/")}
    assert listed == {f"systemd/{path.name}" for path in (PROJECT / "systemd").iterdir()}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        yield manager


def environment(manager: socket.socket) -> dict[str, str]:
    return ENVIRONMENT | {"NOTIFY_SOCKET": manager.getsockname()}


def test_the_manager_hears_of_the_start_and_the_end(mount: Mount, manager: socket.socket) -> None:
    mount.sh("mkdir /mnt/another")
    server = mount.fork("virtfs", "mount", "-f", "/mnt/another", environment=environment(manager))
    assert manager.recv(1000) == b"READY=1\nSTATUS=Serving /mnt/another"
    mount.sh("umount /mnt/another")
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=Removing the interfaces"
    assert server.wait(PATIENCE) == 0


def test_the_manager_hears_why_a_mount_fails(mount: Mount, manager: socket.socket) -> None:
    server = mount.fork("virtfs", "mount", "-f", DIR, environment=environment(manager))
    assert manager.recv(1000) == f'STATUS="{DIR}" is busy: virtfs is already mounted there\nERRNO=16'.encode()
    assert server.wait(PATIENCE) == 1


def test_a_background_server_is_not_the_service(mount: Mount, manager: socket.socket) -> None:
    mount.sh("mkdir /mnt/background")
    server = mount.fork("virtfs", "mount", "/mnt/background", environment=environment(manager))
    assert server.wait(PATIENCE) == 0
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    mount.sh("umount /mnt/background")
