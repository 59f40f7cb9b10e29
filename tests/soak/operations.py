"""The operations of a soak by name, and how often each is chosen."""

from collections.abc import Callable
from typing import Final

from . import commands, faults, plugs, users
from .lab import Lab

OPERATIONS: Final[dict[str, Callable[[Lab], None]]] = {
    "create": commands.create,
    "destroy": commands.destroy_one,
    "change": commands.change,
    "impair": commands.impair,
    "move": commands.move,
    "join": commands.join,
    "cable": commands.cable,
    "write": users.write,
    "flood": users.flood,
    "inject": users.inject,
    "hex": users.hexadecimal,
    "reader": users.reader,
    "capture": users.capture,
    "history": users.history,
    "clone": users.clone,
    "kill a client": users.kill_client,
    "stop a client": users.stop_client,
    "stream": plugs.stream,
    "rx": plugs.rx,
    "carrier": plugs.carrier,
    "upopen": plugs.upopen,
    "cable to a socket": plugs.plug,
    "a namespace ends": plugs.end_namespace,
    "full disk": faults.full_disk,
    "no descriptors": faults.out_of_descriptors,
    "ip": faults.by_ip,
    "ip link set name": faults.rename,
    "ip on the bridge": faults.bridge_by_ip,
    "ip link del": faults.delete,
    "kill the server": faults.kill,
}
# How often each operation is chosen, compared with the others. Those that are left out have 1.
WEIGHTS: Final = {"create": 4, "change": 6, "impair": 4, "write": 8, "flood": 8, "reader": 6, "cable": 3, "ip": 4}
# Operations that a caller chooses itself.
SEPARATE: Final = {"kill the server"}
CHOICES: Final = [name for name in OPERATIONS if name not in SEPARATE for _ in range(WEIGHTS.get(name, 1))]


def do(lab: Lab, name: str) -> None:
    """Carry out an operation, a key of OPERATIONS, and record it."""
    lab.note(name)
    OPERATIONS[name](lab)
