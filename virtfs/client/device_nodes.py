"""The device nodes that a server opens, and the check that a user may open them."""

import errno
import os
from pathlib import Path
from typing import Final

from virtfs.core.errors import VirtError

FUSE: Final = Path("/dev/fuse")
TUN: Final = Path("/dev/net/tun")


def check_devices(*devices: Path) -> None:
    """Check that this user may open device nodes. VirtError: ENODEV, EACCES; the sentence has the remedy."""
    missing = [device for device in devices if not device.exists()]
    if missing:
        what, modules = " and no ".join(map(str, missing)), " ".join(device.name for device in missing)
        options = " and ".join(f"--device {device}" for device in missing)
        advice = f"as root, run `modprobe -a {modules}`; a container needs {options}"
        raise VirtError(errno.ENODEV, f"there is no {what}: {advice}")
    denied = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if denied:
        what = " and ".join(f"{device} (mode {device.stat().st_mode & 0o777:04o})" for device in denied)
        change = f"chmod 0666 {' '.join(map(str, denied))}"
        raise VirtError(errno.EACCES, f"no permission to open {what}: as root, run `{change}`")
