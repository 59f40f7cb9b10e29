"""Commands that the users write to ctl files, and their effect on the model."""

import errno

from harness import traffic
from harness.waiting import until

from .lab import Lab
from .model import BRIDGE, FAR, IMPAIRMENTS, UNITS, USERS, Unit


def create(lab: Lab) -> None:
    """Create an interface, or make sure that a second creation is refused."""
    number = lab.random.randrange(1, UNITS + 1)
    verbs = [f"mtu {lab.random.choice([1280, 1500, 9000])}", f"backlog {lab.random.choice([0, 8])}"]
    verbs += lab.random.choice([["up"], ["up"], ["persist", "up"], []])
    owner = lab.random.choice([0, *USERS])
    line = f"create {number} {' '.join(verbs)}" + (f" owner {owner}" if owner else "")
    if number in lab.units:
        lab.refuse("ctl", line, errno.EEXIST)
        return
    lab.say("ctl", line)
    unit = lab.units[number] = Unit(owner)
    for verb in verbs:
        unit.apply(verb)
    lab.plug_in(number, unit)


def destroy_one(lab: Lab) -> None:
    """Destroy an interface, perhaps a lost one."""
    if lab.units:
        lab.destroy(lab.random.choice(sorted(lab.units)))


def change(lab: Lab) -> None:
    """Let root or the owner write a line of verbs to an interface's ctl."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    r = lab.random
    pool = [
        f"mtu {r.choice([1280, 1400, 1500, 9000])}",
        f"queue {r.choice([5, 50, 256, 1000])}",
        f"backlog {r.choice([0, 1, 20])}",
        r.choice(["up", "up", "down"]),
        r.choice(["strict", "-strict"]),
        r.choice(["promisc", "-promisc"]),
        f"exclusive {r.choice(['read', 'none'])}",
    ]
    uid = r.choice([0, unit.owner])
    if uid == 0:
        pool += [r.choice(["persist", "-persist"]), r.choice(["antispoof", "-antispoof"])]
        pool += [f"inet 10.{number}.{r.randrange(4)}.1/24"]
    verbs = r.sample(pool, r.randrange(1, 4))
    if r.random() < 0.3:
        verbs.append(f"description {r.choice(['a note', 'of ü and # more', '42'])}")
    elif r.random() < 0.2:  # the last verb is refused by the kernel, so all are undone
        lab.refuse(f"virt{number}/ctl", " ".join([*verbs, f"-inet 10.99.{number}.1"]), errno.EADDRNOTAVAIL)
        if {"down", "up"} & set(verbs):
            lab.drain(number)
        return
    lab.say(f"virt{number}/ctl", " ".join(verbs), uid)
    for verb in verbs:
        unit.apply(verb)


def impair(lab: Lab) -> None:
    """Impair an interface or end its impairments. Or set a filter."""
    if (found := lab.pick()) is None:
        return
    number, unit = found
    verb = lab.random.choice([*(f"impair {words}" for words in IMPAIRMENTS), "-impair", "filter less 200", "-filter"])
    lab.say(f"virt{number}/ctl", verb, unit.owner)
    unit.apply(verb)
    if unit.cable is not None:
        lab.units[unit.cable].ledger.disturbed |= unit.ledger.disturbed  # it gets what has passed the impairment


def move(lab: Lab) -> None:
    """Move a tap to the other namespace and back, by virtfs or by ip(8)."""
    if (found := lab.pick(lambda unit: not unit.bridge)) is None:
        return
    number, unit = found
    to = "" if unit.netns else FAR
    if lab.random.random() < 0.5:
        lab.history.append(f"move virt{number} to {to!r}")
        lab.mount.write(f"virt{number}/tap/netns", to + "\n")
    else:
        lab.ip(f"link set tap{number} netns {to or lab.mount.pid}", unit.netns)
        unit.inets, unit.values["up"] = [], False
        what = f"virt{number} is in {to!r} and down"
        until(lambda: lab.mount.texts([f"virt{number}/tap/netns", f"virt{number}/up"]) == [to, "0"], what)
    unit.netns = to
    assert unit.ledger.wire is not None
    unit.ledger.frames_out += unit.ledger.wire.call(traffic.host_reads)
    unit.ledger.wire.close()
    lab.plug_in(number, unit)


def join(lab: Lab) -> None:
    """Make the bridge, put a tap into it, or take one out, by virtfs or by ip(8)."""
    if not lab.bridge:
        lab.say("ctl", f"create {BRIDGE} up")
        lab.bridge = lab.bridge_up = True
    if (found := lab.pick(lambda unit: not unit.netns)) is None:
        return
    number, unit = found
    to = "" if unit.bridge else BRIDGE
    if to and unit.cable is not None and lab.units[unit.cable].bridge:
        return  # a loop, in which each broadcast frame would run for ever
    unit.ledger.mixed = True
    if lab.random.random() < 0.5:
        lab.say(f"virt{number}/ctl", f"bridge {to}" if to else "-bridge")
    else:
        lab.ip(f"link set tap{number} {f'master {to}' if to else 'nomaster'}")
        until(lambda: lab.mount.read(f"virt{number}/tap/bridge") == to, f"virt{number} is in bridge {to!r}")
    unit.bridge = to


def cable(lab: Lab) -> None:
    """Connect two interfaces, or remove a cable."""
    if (found := lab.pick(lambda unit: unit.cable is not None)) is not None and lab.random.random() < 0.5:
        number, unit = found
        assert unit.cable is not None
        lab.cut(number, f"uncable {number} {unit.cable}")
        return
    free = [number for number, unit in lab.units.items() if unit.cable is None and not unit.lost]
    if len(free) < 2:
        return
    one, two = lab.random.sample(sorted(free), 2)
    if lab.units[one].bridge and lab.units[two].bridge:
        return  # a loop, as in join()
    words = lab.random.choice(["", "", " delay 2ms", " out loss 50%", " duplicate 20%"])
    lab.say("ctl", f"cable {one} {two}{words}")
    for number, other in ((one, two), (two, one)):
        unit = lab.units[number]
        unit.cable, unit.ledger.unread = other, True
        unit.ledger.disturbed |= bool(words) or lab.units[other].ledger.disturbed
