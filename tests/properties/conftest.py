"""Mounts as those of tests/mount."""

from mount.conftest import _current, mount, pytest_runtest_makereport

__all__ = ["_current", "mount", "pytest_runtest_makereport"]
