"""The file stats, for programs that read counters often: a heading, then one line of counters for each interface."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Final

from virtfs.core.virt import COUNTERS, Virt

HEADING: Final = f"INTERFACE {' '.join(COUNTERS)}\n"
AT_ONCE = 32  # maximum number of lines in a piece of the text
_RX_DROPPED = COUNTERS.index("rx_dropped")
_LINE = f"%s{' %d' * len(COUNTERS)}\n"
_values = attrgetter(*COUNTERS)


def line_of(virt: Virt) -> str:
    """Return the line of an interface. This is much faster than values.counters(), which gives the same numbers."""
    values = list(_values(virt.counters))
    values[_RX_DROPPED] += virt.host.dropped
    return _LINE % (virt.name, *values)


def table(virts: Iterable[Virt], lines: Mapping[str, str]) -> Iterator[str]:
    """Yield the text of the file in pieces. lines: the lines that need not be made again, keyed by interface name."""
    yield HEADING
    rest = iter(virts)
    while some := [lines.get(virt.name) or line_of(virt) for virt in islice(rest, AT_ONCE)]:
        yield "".join(some)
