"""The source distribution has the whole checkout, and its wheel works in a clean environment."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness import tools
from harness.running import script
from harness.serving import ENVIRONMENT, PROJECT

from . import building, installed

# $1 has a directory virt and the file fstab; $2 becomes /sbin.
_MOUNT = """
mount --bind "$2" /sbin/
mount --bind "$1/fstab" /etc/fstab
cd "$1"
mount -t virtfs none virt
findmnt -no FSTYPE,SOURCE virt
echo create 3 >virt/ctl
cut -d' ' -f-2 virt/ctl
umount virt
mount virt
findmnt -no FSTYPE,SOURCE virt
umount virt
mount -t fuse.virtfs other virt
mount -t fuse.virtfs -o remount,ro other virt
findmnt -no FSTYPE,SOURCE virt
umount virt
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return building.sources(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def archive(sources: Path) -> Path:
    return building.sdist(sources, sources.parent / "sdist")


def test_the_source_distribution_is_complete(sources: Path, archive: Path) -> None:
    made_by_setuptools = {"PKG-INFO", "setup.cfg"}
    files = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file() or path.is_symlink()}
    with tarfile.open(archive) as tar:
        packed = {member.name.partition("/")[2] for member in tar.getmembers() if not member.isdir()}
    assert {name for name in packed ^ files if ".egg-info/" not in name} <= made_by_setuptools


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    return building.wheel(archive, archive.parents[1] / "wheel")


@pytest.fixture(scope="module")
def prefix(wheel: Path) -> Path:
    """What `make install` installs, in a directory of its own."""
    directory = wheel.parents[1]
    prefix, root = directory / "usr", directory / "root"
    where = {"PREFIX": str(prefix), "DESTDIR": str(root), "SBINDIR": f"{directory}/sbin", "PYTHON": sys.executable}
    where |= {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    building.run([PROJECT / "tools/install", wheel], PROJECT, **where)
    for name in ("usr", "sbin"):
        (root / str(directory / name).lstrip("/")).rename(directory / name)
    building.with_libraries(prefix / "lib/virtfs")
    return prefix


def test_the_wheel_has_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = {name.partition("/")[0] for name in files.namelist()}
    assert {re.sub(r"-[0-9.]+\.", "-VERSION.", name) for name in names} == {
        "virtfs",
        "virtfs_ethernet-VERSION.data",
        "virtfs_ethernet-VERSION.dist-info",
    }


def test_it_works_in_a_clean_environment(prefix: Path) -> None:
    assert (prefix / "lib/virtfs/bin/python3").is_symlink(), "updates of the system's Python reach the environment"
    installed.check(prefix, prefix / "lib/virtfs")


def test_mount_finds_it(prefix: Path, tmp_path: Path) -> None:
    """mount(8) looks for mount.virtfs and mount.fuse.virtfs in /sbin alone."""
    (tmp_path / "virt").mkdir()
    (tmp_path / "fstab").write_text(f"virtfs {tmp_path}/virt virtfs noauto,max_virts=7 0 0\n")
    done = script(_MOUNT, str(tmp_path), str(prefix.parent / "sbin"))
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "fuse.virtfs none\ncreate 3\nfuse.virtfs virtfs\nfuse.virtfs other\n",
        "",
    )


def test_the_units_run_the_installed_programs(prefix: Path, tmp_path: Path) -> None:
    """systemd finds a bare name only in a few directories, and /opt/virtfs/bin is not one of them."""
    program, script = f"{prefix}/bin/virtfs", f"{prefix}/share/virtfs/prometheus/textfile.sh"
    commands = {"virtfs@.service": [program] * 2, "virtfs-metrics@.service": [script], "virtfs-metrics@.timer": []}
    units = {path.name: path.read_text() for path in (prefix / "lib/systemd/system").iterdir()}
    assert {name: re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE) for name, text in units.items()} == commands
    instances = {tmp_path / name.replace("@", "@mnt-virt"): text for name, text in units.items()}
    for path, text in instances.items():
        path.write_text(text)
    assert tools.complaints("systemd-analyze", "verify", "--man=no", *instances) == ""


def test_the_manual_names_the_installed_files(prefix: Path) -> None:
    pages = {page.name: page.read_text() for page in (prefix / "share/man").rglob("*.[1-8]")}
    named = set(re.findall(r"/[\w/.-]*/share/virtfs/[\w/.-]+\w", "".join(pages.values())))
    assert named == {f"{prefix}/share/virtfs/prometheus/{name}.sh" for name in ("serve", "textfile")}
    assert all(os.access(name, os.X_OK) for name in named)
    assert ".Pa /usr/local/sbin" in pages["virtfs.1"], "a directory of the system"


@pytest.mark.parametrize("words", [["--remove"], []], ids=["remove", "install"])
def test_it_stays_while_a_mount_uses_it(prefix: Path, wheel: Path, words: list[str]) -> None:
    """A server would load modules that are gone, or those of another version."""
    where = ENVIRONMENT | {"PREFIX": str(prefix), "SBINDIR": str(prefix.parent / "sbin")}
    files = sorted(prefix.rglob("*"))
    command = [f"{prefix}/bin/virtfs", "shell", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        given = words or [str(wheel)]
        done = subprocess.run([PROJECT / "tools/install", *given], env=where, capture_output=True, text=True)
        shell.communicate("\n")
    first, *processes = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert first.startswith(f"virtfs: the installation in {prefix} is in use: end these programs first")
    assert processes == [
        f"  process {shell.pid} of root: {prefix}/bin/virtfs shell sh -c echo ready; read line (leave it with exit)"
    ]
    assert sorted(prefix.rglob("*")) == files


def test_it_is_removed_without_a_trace(prefix: Path) -> None:
    """Runs last in this file."""
    sbin = prefix.parent / "sbin"
    building.run([PROJECT / "tools/install", "--remove"], PREFIX=str(prefix), SBINDIR=str(sbin))
    assert not prefix.exists(), "no empty directories stay"
    assert not sbin.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_user_without_rights_is_told_at_once() -> None:
    with open(PROJECT / "tools/install") as script:
        done = subprocess.run(
            ["bash", "-s", "--", "--check"],
            stdin=script,
            capture_output=True,
            text=True,
            cwd="/",
            user=65534,
            env=ENVIRONMENT | {"PREFIX": "/nonexistent"},
        )
    assert done.returncode == 1
    assert "type sudo before make" in done.stderr
