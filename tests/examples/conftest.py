"""The examples run on mounts as the tests in tests/mount have them."""

from mount.conftest import _current, mount, pytest_runtest_makereport, virt

__all__ = ["_current", "mount", "pytest_runtest_makereport", "virt"]
