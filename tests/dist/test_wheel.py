"""The source distribution has the whole checkout, and its wheel works in a clean environment."""

import tarfile
import zipfile
from pathlib import Path

import pytest

from . import building, installed


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


def test_its_wheel_works_in_a_clean_environment(archive: Path, tmp_path: Path) -> None:
    wheel = building.wheel(archive, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as files:
        stray = [name for name in files.namelist() if not name.startswith(("virtfs/", "virtfs_ethernet-"))]
    assert stray == []
    environment = building.environment(tmp_path / "environment")
    building.install(wheel, environment)
    installed.check(environment)
