"""Operations that open and close things: carriers, upopen, streams, rx, cables to sockets, and namespaces that end."""

import os
import struct

from harness import traffic
from harness.waiting import until

from .lab import Lab
from .ledger import NONBLOCK
from .model import DISK
from .users import lengths, send, write_frames

GONE = "gone"  # a namespace that ends with its tap
SOCKET = f"{DISK}/socket"


def _shows(lab: Lab, path: str, text: str) -> None:
    until(lambda: lab.mount.read(path) == text, f"{path} has {text}")


def stream(lab: Lab) -> None:
    """Let a user write records to `stream`, in one call."""
    if (found := lab.pick(lambda unit: not unit.values["strict"])) is None:
        return
    number, unit = found
    file = lab.users[unit.owner].open(f"virt{number}/stream", os.O_WRONLY)
    frames = unit.ledger.numbered("virt", number, lengths(lab)[:100])
    file.call(traffic.write_whole, b"".join(struct.pack(">I", len(one)) + one for one in frames))
    file.close()
    unit.ledger.written += len(frames)
    lab.frames += len(frames)
    lab.history.append(f"{len(frames)} records written to virt{number}/stream")


def rx(lab: Lab) -> None:
    """Let a program read from `rx` during a flood."""
    if (found := lab.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
        return
    number, unit = found
    unit.ledger.unread = True
    program = lab.users[unit.owner]
    file = program.open(f"virt{number}/rx", NONBLOCK)
    lab.history.append(f"read virt{number}/rx")
    send(lab, number, unit)
    file.call(traffic.read_all)
    file.close()


def carrier(lab: Lab) -> None:
    """Unplug an interface, write frames, and plug it in again; or plug it in by an open."""
    if (found := lab.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
        return
    number, unit = found
    how = lab.random.choice(["off", "open"])
    lab.say(f"virt{number}/ctl", f"carrier {how}", unit.owner)
    _shows(lab, f"virt{number}/tap/carrier", "0")
    if how == "off":
        write_frames(lab, number, unit)
    else:
        file = lab.users[unit.owner].open(f"virt{number}/frame", NONBLOCK)
        _shows(lab, f"virt{number}/tap/carrier", "1")
        unit.ledger.take_in(file.call(traffic.read_all))
        file.close()
    lab.say(f"virt{number}/ctl", "carrier always", unit.owner)
    _shows(lab, f"virt{number}/tap/carrier", "1")


def upopen(lab: Lab) -> None:
    """Let an open set an interface up, and the close set it down."""
    if (found := lab.pick(lambda unit: unit.ledger.reader is None)) is None:
        return
    number, unit = found
    if unit.values["up"]:
        lab.drain(number)
    lab.say(f"virt{number}/ctl", "upopen", unit.owner)
    file = lab.users[unit.owner].open(f"virt{number}/frame", NONBLOCK)
    _shows(lab, f"virt{number}/up", "1")
    unit.ledger.take_in(file.call(traffic.read_all))
    file.close()
    _shows(lab, f"virt{number}/up", "0")
    lab.say(f"virt{number}/ctl", "-upopen", unit.owner)
    unit.values["up"] = False


def plug(lab: Lab) -> None:
    """Connect an interface to a socket of a program, flood it, and disconnect it."""
    if (found := lab.pick(lambda unit: unit.cable is None and unit.ledger.reader is None)) is None:
        return
    number, unit = found
    root = lab.users[0]
    unit.ledger.unread = True
    if lab.random.random() < 0.5:
        listener, _ = root.call(traffic.listen, SOCKET)
        name = f"unix:{SOCKET}"
    else:
        lab.ip("link set lo up")
        listener, port = root.call(traffic.listen, "")
        name = f"tcp:127.0.0.1:{port}"
    lab.say("ctl", f"cable {number} {name}")
    connection = root.call(traffic.accept, listener)
    if unit.values["up"]:
        send(lab, number, unit)
    root.call(traffic.read_all, connection)
    lab.say("ctl", f"uncable {number} {name}")
    for fd in (connection, listener):
        root.call(os.close, fd)
    if name.startswith("unix:"):
        root.call(os.unlink, SOCKET)


def end_namespace(lab: Lab) -> None:
    """Move a tap to a namespace that ends. The interface is lost."""
    if (found := lab.pick(lambda unit: unit.cable is None)) is None or lab.random.random() < 0.5:
        return
    number, unit = found
    lab.ip(f"netns add {GONE}")
    lab.ip(f"link set tap{number} netns {GONE}", unit.netns)
    lab.ip(f"netns del {GONE}")
    until(lambda: lab.is_lost(number), f"virt{number} is lost")
    unit.lost = True
    unit.values["up"] = False
    unit.ledger.close()
