"""virtfs: Ethernet interfaces as files.

    host kernel ── tap3 ══════ wire ══════ virt3 ── files under /mnt/virt/virt3 ── your program

For programs that use virtfs, this package is the Python API; doc/python.md describes it:

    with virtfs.Mount("/mnt/virt") as net:
        v = net.create(3, up=True, inet="10.0.3.1/24")
        with v.open() as port:
            port.send(b"…"); frame = port.recv()

For developers of virtfs, these are the folders, lowest layer first. Each imports only folders listed before it; client
imports only core, and testing only client and core. tests/test_layers.py checks this.

    core/      pure: grammar, queues, numbers, states. Standard library only, no system calls
    host/      the kernel's interfaces, one module each: taps, links (with pyroute2), namespaces
    forward/   trio tasks that carry frames between a tap and its virt
    files/     one small class for each kind of file, with methods named after the system calls
    fuse/      the FUSE server. mount: mounts and unmounts. protocol: the messages of /dev/fuse.
               channel: reads requests. answerers: the functions that answer them. names: rare requests, with pyfuse3
    daemon/    owns the interfaces, carries out commands, undoes commands that fail
    client/    the Python API, over the files of a mount
    testing/   the pytest plugin
    cli/       the commands `virtfs …` and `mount.virtfs`

    aio        the Python API for asyncio and trio; belongs to client
    scapy      a socket for scapy; belongs to client

The docstring of each folder lists its modules; doc/design.md explains the design.
"""

__version__ = "0.2.0"

__all__ = [
    "Bridge",
    "Cable",
    "Client",
    "Event",
    "Events",
    "Host",
    "Known",
    "Loan",
    "Mount",
    "Port",
    "Stats",
    "Stream",
    "Tap",
    "Virt",
    "aio",
    "mount",
]

TYPE_CHECKING = False  # type checkers take it for typing.TYPE_CHECKING, which needs an import
if TYPE_CHECKING:
    from virtfs import aio
    from virtfs.client.bridge import Bridge, Known
    from virtfs.client.cable import Cable
    from virtfs.client.events import Event, Events
    from virtfs.client.mount import Mount
    from virtfs.client.native import Loan, Tap
    from virtfs.client.port import Port
    from virtfs.client.started import mount
    from virtfs.client.stream import Stream
    from virtfs.client.virt import Client, Host, Stats, Virt

# Maps each name of the API to its module. The module is imported when the name is first used, because the server and
# the commands also import this package and must not wait for the API.
_MODULES = {
    "Bridge": "bridge",
    "Cable": "cable",
    "Client": "virt",
    "Event": "events",
    "Events": "events",
    "Host": "virt",
    "Known": "bridge",
    "Loan": "native",
    "Mount": "mount",
    "Port": "port",
    "Stats": "virt",
    "Stream": "stream",
    "Tap": "native",
    "Virt": "virt",
    "mount": "started",
}


def __getattr__(name: str) -> object:
    """Import and return a name of the API when it is first used (PEP 562)."""
    from importlib import import_module

    if name == "aio":
        return import_module("virtfs.aio")
    if name in _MODULES:
        return globals().setdefault(name, getattr(import_module(f"virtfs.client.{_MODULES[name]}"), name))
    raise AttributeError(f"module 'virtfs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
