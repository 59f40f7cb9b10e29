"""What README tells is tried on mounts as the tests in tests/mount have them."""

from mount.conftest import _current, alone, mount, pytest_runtest_makereport

__all__ = ["_current", "alone", "mount", "pytest_runtest_makereport"]
