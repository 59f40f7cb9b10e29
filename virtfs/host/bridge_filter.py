"""Whether the kernel passes bridged frames through the packet filter (net/bridge/br_netfilter_hooks.c).

While the module br_netfilter is loaded, as Docker does, the sysctls bridge-nf-call-* of
Documentation/networking/ip-sysctl.rst exist, are 1 in each new network namespace, and count for all bridges in it. The
settings of a single bridge cannot switch off what a sysctl switches on.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from virtfs.host.textfiles import read_text, write_text

_DIRECTORY: Final = Path("/proc/sys/net/bridge")
_NAMES: Final = tuple(f"bridge-nf-call-{filter}" for filter in ("iptables", "ip6tables", "arptables"))


def filtering(directory: Path = _DIRECTORY) -> list[str]:
    """Return the sysctls that make bridged frames pass the packet filter in the network namespace of the thread.

    The result is empty if the module is not loaded. Never fails. directory: where the sysctls are.
    """
    names = []
    for name in _NAMES:
        with suppress(OSError):
            if read_text(directory / name).strip() != "0":
                names.append(f"net.bridge.{name}")
    return names


def stop_filtering() -> None:
    """Let bridged frames bypass the packet filter in the network namespace of the thread, if this user may.

    Root of the user namespace that owns the network namespace may (net/sysctl_net.c net_ctl_permissions), unless
    /proc/sys is read-only, as in a container.
    """
    for name in _NAMES:
        with suppress(OSError):
            write_text(_DIRECTORY / name, "0")
