"""Traffic, captures and programs of the users."""

import os
import signal
from pathlib import Path

from harness import traffic
from harness.places import DIR
from harness.savefiles import pcap, pcap_packet
from harness.waiting import until

from .lab import Lab
from .ledger import NONBLOCK
from .model import Unit


def lengths(lab: Lab) -> list[int]:
    """Return the lengths of some frames. Some are too short or too long."""
    count = lab.random.choice([1, 3, 30, 300])
    return [lab.random.choice([13, 14, 60, 60, 150, 300, 1400, 1514, 1600]) for _ in range(count)]


def write(lab: Lab) -> None:
    """Let a user write frames to an interface."""
    if (found := lab.pick()) is not None:
        write_frames(lab, *found)


def write_frames(lab: Lab, number: int, unit: Unit) -> None:
    """Let the owner write frames to an interface."""
    file = lab.users[unit.owner].open(f"virt{number}/frame", os.O_WRONLY)
    frames = unit.ledger.numbered("virt", number, lengths(lab))
    unit.ledger.written += file.call(traffic.write_all, frames)
    file.close()
    lab.frames += len(frames)
    lab.history.append(f"{len(frames)} frames written to virt{number}")


def flood(lab: Lab) -> None:
    """Let the host send frames through a tap."""
    if (found := lab.pick(lambda unit: unit.values["up"])) is not None:
        send(lab, *found)


def send(lab: Lab, number: int, unit: Unit) -> None:
    """Let the host send frames through a tap that is up."""
    assert unit.ledger.wire is not None
    sizes = [max(60, min(length, unit.values["mtu"])) for length in lengths(lab)]
    frames = unit.ledger.numbered("host", number, sizes)
    unit.ledger.sent += unit.ledger.wire.call(traffic.host_sends, frames)
    lab.frames += len(frames)
    lab.history.append(f"{len(frames)} frames sent through tap{number}")


def inject(lab: Lab) -> None:
    """Let a user write a capture file to `inject`."""
    if (found := lab.pick(lambda unit: not unit.values["strict"])) is None:
        return
    number, unit = found
    file = lab.users[unit.owner].open(f"virt{number}/inject", os.O_WRONLY)
    frames = unit.ledger.numbered("virt", number, lengths(lab))
    file.write(pcap("<", [pcap_packet("<", 0, one) for one in frames]))
    file.close()
    unit.ledger.written += len(frames)
    lab.frames += len(frames)
    lab.history.append(f"{len(frames)} frames injected at virt{number}")


def hexadecimal(lab: Lab) -> None:
    """Let a user write lines to `hex`."""
    if (found := lab.pick(lambda unit: not unit.values["strict"])) is None:
        return
    number, unit = found
    file = lab.users[unit.owner].open(f"virt{number}/hex", os.O_WRONLY)
    frames = unit.ledger.numbered("virt", number, lengths(lab)[:20])
    file.write("".join(f"{one.hex()}\n" for one in frames))
    file.close()
    unit.ledger.written += len(frames)
    lab.frames += len(frames)
    lab.history.append(f"{len(frames)} lines written to virt{number}/hex")


def reader(lab: Lab) -> None:
    """Open `frame` for reading, or read from it and close it."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    if unit.ledger.reader is None:
        unit.ledger.reader = lab.users[unit.owner].open(f"virt{number}/frame", NONBLOCK)
        lab.history.append(f"virt{number}/frame is open")
        return
    if lab.random.random() < 0.7:
        unit.ledger.take_in(unit.ledger.reader.call(traffic.read_all))
    unit.ledger.reader.close()
    unit.ledger.reader = None
    lab.history.append(f"virt{number}/frame is closed")


def capture(lab: Lab) -> None:
    """Capture one interface while frames are sent and written."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    file = lab.users[0].open(f"virt{number}/pcap", os.O_RDONLY)
    lab.history.append(f"capture virt{number}")
    if unit.values["up"]:
        send(lab, number, unit)
    write_frames(lab, number, unit)
    file.read(1 << 16)
    file.close()


def history(lab: Lab) -> None:
    """Keep a history, read it after some traffic, and stop keeping it."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    lab.say(f"virt{number}/ctl", "history 64K", unit.owner)
    if unit.values["up"]:
        send(lab, number, unit)
    lab.users[unit.owner].call(Path.read_bytes, Path(DIR, f"virt{number}/history"))
    lab.say(f"virt{number}/ctl", "-history", unit.owner)


def clone(lab: Lab) -> None:
    """Create an interface by opening clone, and end it by the close."""
    file = lab.users[0].open("clone", os.O_RDWR)
    name = f"virt{int(file.read())}"
    lab.history.append(f"clone of {name}")
    lab.same(f"{name} is there", name in lab.mount.units(), True)
    file.close()
    until(lambda: name not in lab.mount.units(), f"{name} is gone")


def kill_client(lab: Lab) -> None:
    """Kill a program that waits for a frame."""
    if (found := lab.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
        return
    number, unit = found
    program = lab.mount.process(unit.owner)
    file = program.open(f"virt{number}/frame", os.O_RDONLY)
    unit.ledger.unread = True
    file.begin_read()
    send(lab, number, unit)
    lab.history.append(f"kill a reader of virt{number}")
    program.kill()


def stop_client(lab: Lab) -> None:
    """Stop a program that reads, and let it continue after a flood."""
    if (found := lab.pick(lambda unit: unit.values["up"] and unit.ledger.reader is None)) is None:
        return
    number, unit = found
    program = lab.mount.process(unit.owner)
    file = program.open(f"virt{number}/frame", NONBLOCK)
    lab.history.append(f"stop a reader of virt{number}")
    program.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            send(lab, number, unit)
            write_frames(lab, number, unit)
    finally:
        program.signal(signal.SIGCONT)
    unit.ledger.take_in(file.call(traffic.read_all))
    program.close()
