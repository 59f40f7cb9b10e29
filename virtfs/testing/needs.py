"""Needs: the capabilities, programs and devices that the fixtures need. The errors name what this machine lacks."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from virtfs.client.device_nodes import FUSE, TUN, check_devices

# Numbers and names of the capabilities that virtfs/host/privileges.py explains (include/uapi/linux/capability.h).
_FOR_MOUNT: Final = {11: "NET_BROADCAST", 12: "NET_ADMIN", 13: "NET_RAW", 19: "SYS_PTRACE", 21: "SYS_ADMIN"}
_FOR_NAMESPACE: Final = {12: "NET_ADMIN", 21: "SYS_ADMIN"}
# Programs that the fixtures run, with the packages of Debian that have them.
_PROGRAMS: Final = {"ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux", "unshare": "util-linux"}


def why_not(fixtures: Iterable[str]) -> str:
    """Return why this machine cannot run tests that use these fixtures, or "" if it has what they need.

    fixtures: names of fixtures, those that others use included, such as item.fixturenames in a hook of pytest.
    It looks at capabilities, programs and devices, and mounts nothing. So a mount may still fail, for example if
    AppArmor forbids it.

    >>> why_not(["virtfs_mount", "lab"])
    ''
    """
    names = {*fixtures}
    try:
        if "virtfs_mount" in names:
            check_mount()
        elif "_virtfs_netns" in names:
            check_namespace()
    except OSError as lacking:
        return str(lacking.strerror)
    return ""


def check_mount() -> None:
    """Check that this process can mount and make interfaces. OSError: EPERM, EACCES, ENOENT, ENODEV, with the remedy.

    A namespace needs nothing more.
    """
    _check_capabilities(_FOR_MOUNT, "interfaces need")
    _check_programs()
    check_devices(FUSE, TUN)


def check_namespace() -> None:
    """Check that this process can make a network namespace. OSError: EPERM, ENOENT, with the remedy."""
    _check_capabilities(_FOR_NAMESPACE, "network namespaces need")
    _check_programs()


def _check_capabilities(needed: dict[int, str], subject: str) -> None:
    """Look for capabilities in the effective set of this process (proc_pid_status(5), CapEff).

    subject: how the sentence for a user who is not root begins.
    """
    _, _, rest = Path("/proc/self/status").read_bytes().partition(b"CapEff:")
    held = int(rest.split()[0], 16)
    missing = [name for capability, name in needed.items() if not held & 1 << capability]
    if not missing:
        return
    if os.geteuid():
        raise OSError(errno.EPERM, f"{subject} root: run the tests with `virtfs shell -- pytest`")
    options = " ".join(f"--cap-add {name}" for name in missing)
    lacking = " and ".join(f"CAP_{name}" for name in missing)
    raise OSError(errno.EPERM, f"root lacks {lacking} here, as in a container: start the container with {options}")


def _check_programs() -> None:
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking:
        packages = " ".join(dict.fromkeys(_PROGRAMS[name] for name in lacking))
        reason = f"the fixtures of virtfs need {' and '.join(lacking)}, not found in PATH: install {packages}"
        raise FileNotFoundError(errno.ENOENT, reason)
