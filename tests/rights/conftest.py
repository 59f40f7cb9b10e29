"""Mounts as those of tests/mount."""

from mount.conftest import _current, alone, mount, pytest_runtest_makereport, virt, virts

__all__ = ["_current", "alone", "mount", "pytest_runtest_makereport", "virt", "virts"]
