"""`make install` with other directories."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.serving import PROJECT

from . import building

HELPERS = ("mount.virtfs", "mount.fuse.virtfs")  # the programs that mount(8) looks for


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    return building.plain_wheel(building.sources(directory), directory / "wheel")


class Host:
    """A directory in which virtfs is installed with several PREFIXes, and which has an sbin of its own."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self.directory = directory
        self.sbin = directory / "sbin"
        self.sbin.mkdir()
        self._wheel = wheel

    def make(self, target: str, prefix: str = "local", **environment: str) -> subprocess.CompletedProcess[str]:
        """Do the work of `make install` or `make uninstall` with this PREFIX, and return its status and output."""
        where = {"PREFIX": str(self.directory / prefix), "SBINDIR": str(self.sbin), "PYTHON": sys.executable}
        where |= {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
        words = [self._wheel] if target == "install" else ["--remove"]
        return subprocess.run(
            [PROJECT / "tools/install", *words],
            cwd=self.directory,
            env=os.environ | where | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )

    def must(self, target: str, prefix: str = "local") -> str:
        """Do the same, which must succeed, and return the output."""
        done = self.make(target, prefix)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def program(self, prefix: str) -> Path:
        return self.directory / prefix / "lib/virtfs/bin/mount.virtfs"

    def package(self) -> None:
        """Install files as the Debian package does: its links are relative (debhelper makes them so)."""
        self.program("usr").parent.mkdir(parents=True, exist_ok=True)
        self.program("usr").write_text("#!/bin/sh\n")
        self.program("usr").chmod(0o755)
        for name in HELPERS:
            (self.sbin / name).unlink(missing_ok=True)
            (self.sbin / name).symlink_to("../usr/lib/virtfs/bin/mount.virtfs")

    def remove_package(self) -> None:
        self.program("usr").unlink()
        for name in HELPERS:
            (self.sbin / name).unlink()

    def mounts_with(self) -> set[Path | None]:
        """Return the programs that mount(8) runs, None for a type that it does not know."""
        found = (self.sbin / name for name in HELPERS)
        return {path.resolve() if path.exists() else None for path in found}


@pytest.fixture
def host(tmp_path: Path, wheel: Path) -> Host:
    return Host(tmp_path, wheel)


@pytest.mark.parametrize("name", ["a b", "50%", "a'b", 'a"b', "a&b", "a|b", "a$b", "a\\b", "größe"])
def test_a_prefix_that_a_unit_cannot_name_is_refused(host: Host, name: str) -> None:
    done = host.make("install", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f'virtfs: PREFIX="{host.directory}/{name}" may only have ASCII letters')
    assert os.listdir(host.directory) == ["sbin"]


def test_make_passes_any_prefix_on(tmp_path: Path) -> None:
    """The shell that make starts does not see the quotes in it."""
    done = subprocess.run(
        ["make", "uninstall", f"PREFIX={tmp_path}/it's \"here\""], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[0] == f"virtfs: nothing is installed in {tmp_path}/it's \"here\""


def test_destdir_may_have_blanks_and_be_relative(host: Host) -> None:
    root = host.directory / "a [b] c"
    done = host.make("install", DESTDIR=root.name)
    assert (done.returncode, done.stderr) == (0, "")
    home = host.program("local").parents[1]
    packed = Path(f"{root}{home}")
    assert (packed / "installed").is_file()
    for name in ("bin/virtfs", "bin/mount.virtfs", "pyvenv.cfg"):
        text = (packed / name).read_text()
        assert str(root) not in text, name
        assert "pyvenv" in name or f"{home}/bin/python" in text, name
