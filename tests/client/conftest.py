"""The mount of a module as the Python API sees it.

The mount is in another mount namespace. /proc/PID/root leads there, so a test uses the API in its own process.
"""

import pytest
from harness.places import DIR
from harness.serving import Mount

import virtfs


def seen(mount: Mount) -> virtfs.Mount:
    """Return the object of a mount."""
    return virtfs.Mount(f"/proc/{mount.pid}/root{DIR}")


@pytest.fixture
def net(mount: Mount) -> virtfs.Mount:
    """Return the object of the module's mount, which has no interface."""
    return seen(mount)


@pytest.fixture
def v(net: virtfs.Mount) -> virtfs.Virt:
    """Return a fresh interface, virt3, up."""
    return net.create(3, up=True)
