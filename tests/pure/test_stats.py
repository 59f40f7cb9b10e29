"""The file stats."""

from dataclasses import replace

from virtfs.core.ids import Unit
from virtfs.core.stats import AT_ONCE, HEADING, line_of, table
from virtfs.core.values import counters
from virtfs.core.virt import COUNTERS, HostEnd, Virt


def virt(unit: int) -> Virt:
    made = Virt(Unit(unit), bytes(6), HostEnd(f"tap{unit}", 7, True, 1500, bytes(6), True, 256))
    for number, name in enumerate(COUNTERS):
        setattr(made.counters, name, 10**number + unit)
    return made


def test_a_line_has_the_numbers_of_the_files() -> None:
    one = virt(3)
    one.set_host(replace(one.host, dropped=1000))
    name, *numbers = line_of(one).split(" ")
    assert name == "virt3"
    assert dict(zip(HEADING.split()[1:], map(int, numbers), strict=True)) == dict(counters(one))


def test_lines_are_made_for_new_interfaces() -> None:
    said = "".join(table([virt(3), virt(12)], {"virt3": "virt3 kept\n", "virt4": "virt4 gone\n"}))
    assert said.splitlines()[0].split() == ["INTERFACE", *COUNTERS]
    assert said.splitlines()[1:] == ["virt3 kept", line_of(virt(12)).rstrip("\n")]
    assert list(table([], {})) == [HEADING]


def test_a_piece_has_few_lines() -> None:
    """So other tasks can run while the text is made, and a stat(2) need not make all of it."""
    pieces = list(table(map(virt, range(1000)), {}))
    assert sum(piece.count("\n") for piece in pieces) == 1001
    assert max(piece.count("\n") for piece in pieces) <= AT_ONCE
