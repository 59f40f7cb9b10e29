"""The same mounts as those of tests/mount, for the files that tell of all interfaces."""

from mount.conftest import _current, alone, mount, virt, virts

__all__ = ["_current", "alone", "mount", "virt", "virts"]
