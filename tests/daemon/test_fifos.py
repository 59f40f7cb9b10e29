"""The run-time directory: files of a killed daemon are removed; files in use and files of others are not touched."""

import os
from pathlib import Path

import pytest

from virtfs.core.errors import VirtError
from virtfs.daemon import fifos


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that the FIFOs of a non-root user are made in."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_what_is_left_goes_and_what_is_used_stays(place: Path) -> None:
    left, lock = fifos.make_directory()
    os.close(lock)
    used, lock = fifos.make_directory()
    other, second = fifos.make_directory()
    assert sorted(place.iterdir()) == sorted([used, other])
    assert not left.exists()
    os.close(lock)
    os.close(second)


def test_the_mount_point_of_a_shell_is_not_looked_into(place: Path) -> None:
    """It may be the mount of this daemon, and the lookup would then wait for the daemon itself."""
    (place / "virtfs-abcdefgh").mkdir()
    (place / "virtfs-abcdefgh" / fifos.LOCK).touch()
    _, lock = fifos.make_directory()
    assert (place / "virtfs-abcdefgh" / fifos.LOCK).exists()
    os.close(lock)


def test_a_full_place_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/run may be full, read-only or missing."""
    monkeypatch.setattr(fifos, "_places", lambda: [tmp_path / "missing", tmp_path])
    directory, lock = fifos.make_directory()
    assert directory.parent == tmp_path
    os.close(lock)
    monkeypatch.setattr(fifos, "_places", lambda: [tmp_path / "missing"])
    with pytest.raises(VirtError, match=r"cannot make a run-time directory in any of .*missing: No such file"):
        fifos.make_directory()


def test_a_directory_of_another_user_is_left_alone(place: Path) -> None:
    """In /tmp, any user can make a directory with this name."""
    left, lock = fifos.make_directory()
    os.close(lock)
    os.chown(left, 4001, 4001)
    _, lock = fifos.make_directory()
    assert left.exists()
    os.close(lock)
