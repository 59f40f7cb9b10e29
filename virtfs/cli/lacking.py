"""The rights that root of a container may lack, and the options of podman and docker that add them."""

import os
from collections.abc import Iterable
from typing import Final

from virtfs.host import netns, privileges
from virtfs.host.privileges import Capability

FOR_TAPS: Final = (Capability.CAP_NET_BROADCAST, Capability.CAP_NET_ADMIN)
FOR_A_SHELL: Final = (*FOR_TAPS, Capability.CAP_SYS_ADMIN)  # a user who is not root has them in a user namespace
# The kernel lets root of a user namespace mount a proc only if a visible one shows everything (mount_too_revealing() in
# fs/namespace.c).
UNMASKED: Final = "--security-opt unmask=ALL (Docker: systempaths=unconfined)"

CONFINED: Final = "a container may need --security-opt apparmor=unconfined"


def lacking(needed: Iterable[Capability]) -> str:
    """Return which of these capabilities root lacks, and the options that add them; "" if it has all."""
    missing = privileges.lacking(needed)
    if not missing:
        return ""
    names = " and ".join(capability.name for capability in missing)
    options = " ".join(f"--cap-add {capability.name.removeprefix('CAP_')}" for capability in missing)
    return f"root lacks {names} here, as in a container: start the container with {options}"


def without_taps() -> str:
    """Return why the kernel forbids taps here, with a remedy, or "" if the reason is another one."""
    needed = " and ".join(capability.name for capability in reversed(FOR_TAPS))
    if os.geteuid():
        return f"taps need {needed}: run virtfs as root, or use `virtfs shell`"
    if missing := lacking(FOR_TAPS):
        return f"taps need {needed}: {missing}"
    if netns.is_foreign():
        whose = "this network namespace belongs to another user namespace"
        return f"{whose}, as in a container that a user starts with --network host: start it without this option"
    return ""
