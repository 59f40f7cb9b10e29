"""The lines of text that `virtfs top` shows, and the effects of its keys. Pure: needs no terminal.

View     the state that keys change: the order, the selection, the page
Line     a line of the screen with its style
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from virtfs.cli.columns import cells, cut, host_of, owner_of, padded, short, state_of, table
from virtfs.cli.plot import ASCII, BLOCKS, plot
from virtfs.cli.rates import Interface, Interfaces
from virtfs.core.quoting import one_line

Style = Literal["plain", "title", "heads", "selected", "alarm"]
Key = tuple[str, int]  # an Interface.key

PLOT_MIN = 10  # cells
_NAME_MAX = 24  # cells
_HEIGHT = 3  # lines of a plot on the page of one interface
_NO_MOUNT = (
    "there is no virtfs mount: make one with virtfs mount DIR,",
    "or enter your virtfs shell with virtfs shell --join",
)
_NO_INTERFACE = "there is no interface: make one with virtfs ctl create 3 up"

HELP: Final = (
    ("up, down, k, j", "select an interface; also page up, page down, home, end"),
    ("Enter", "open the page of the selected interface, or leave it"),
    ("n", "sort by name"),
    ("r", "sort by received frames a second"),
    ("t", "sort by transmitted frames a second"),
    ("b", "sort by bits a second in both directions"),
    ("d", "sort by dropped frames"),
    ("o", "sort by readers: opens for reading"),
    ("i", "invert the order"),
    ("h, ?", "this page; any key leaves it"),
    ("q", "quit"),
    ("DROP/S, DROPPED", "dropped frames, also those that no program reads"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen. The style "alarm" is for dropped frames, and for a tap or mount that is gone."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True, slots=True)
class _Order:
    name: str
    value: Callable[[Interface], float]


def _bits(one: Interface, *ways: str) -> float:
    return 8 * sum(one.rates.get(f"{way}_bytes", 0) for way in ways)


_ORDERS: Final = {
    "n": _Order("name", lambda one: 0),
    "r": _Order("rx", lambda one: one.rates.get("rx_frames", 0)),
    "t": _Order("tx", lambda one: one.rates.get("tx_frames", 0)),
    "b": _Order("bits", lambda one: _bits(one, "rx", "tx")),
    "d": _Order("drops", lambda one: one.drops + one.dropped / 2**64),
    "o": _Order("readers", lambda one: one.virt["readers"]),
}


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    side: Literal["<", ">"]
    width: int
    text: Callable[[Interface], str]


def _rate(name: str) -> Callable[[Interface], str]:
    return lambda one: short(one.rates[name]) if name in one.rates else "-"


def _bit_rate(way: str) -> Callable[[Interface], str]:
    return lambda one: short(_bits(one, way)) if one.rates else "-"


# The columns after the name, in display order.
_COLUMNS: Final = {
    "state": _Column("STATE", "<", 6, lambda one: state_of(one.virt)),
    "readers": _Column("READERS", ">", 7, lambda one: str(one.virt["readers"])),
    "rx": _Column("RX/S", ">", 5, _rate("rx_frames")),
    "tx": _Column("TX/S", ">", 5, _rate("tx_frames")),
    "rxbit": _Column("RXBIT/S", ">", 7, _bit_rate("rx")),
    "txbit": _Column("TXBIT/S", ">", 7, _bit_rate("tx")),
    "drops": _Column("DROP/S", ">", 6, lambda one: short(one.drops) if one.rates else "-"),
    "dropped": _Column("DROPPED", ">", 7, lambda one: short(one.dropped)),
    "plot": _Column("RX+TX", "<", PLOT_MIN, lambda one: ""),
}
# The most important columns first: a narrow terminal has no room for the last ones.
_FIRST: Final = ("rx", "tx", "drops", "plot", "state", "readers", "rxbit", "txbit", "dropped")


class View:
    """The state of the screen: the page that is shown, the selection, and the order."""

    def __init__(self, blocks: bool = True) -> None:
        """blocks: whether the terminal can display Unicode block elements."""
        self._marks = BLOCKS if blocks else ASCII
        self._order = "n"
        self._inverted = False
        self._help = False
        self._looking = False  # whether the page of the selected interface is shown
        self._selected: Key | None = None  # None: the first in the list, whichever that is
        self._first = 0  # index of the first line shown, in the list or in the page of an interface
        self._room = 1  # number of lines for the list or page when it was last shown

    @property
    def watched(self) -> Key | None:
        """The key of the interface whose page is shown, or None."""
        return self._selected if self._looking else None

    def press(self, key: str, interfaces: Interfaces) -> bool:
        """Handle a key. Return False if it ends virtfs top, True otherwise. Unknown keys do nothing.

        key: a character, or "up", "down", "pageup", "pagedown", "home", "end", "enter" or "escape".
        """
        if key == "q":
            return False
        if self._help or key in ("h", "?"):
            self._help = not self._help
        elif key in ("enter", "escape"):
            self._turn(key, interfaces)
        elif move := {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -self._room, "pagedown": self._room}.get(key):
            self._move(move, interfaces)
        elif key in ("home", "end"):
            self._move(-len(interfaces) - 2**16 if key == "home" else len(interfaces) + 2**16, interfaces)
        elif key == "i" and not self._looking:
            self._inverted = not self._inverted
        elif key in _ORDERS and not self._looking:
            self._order, self._inverted = key, False
        return True

    def _turn(self, key: str, interfaces: Interfaces) -> None:
        if self._looking:
            self._looking, self._first = False, 0
        elif key == "enter" and (rows := self.sorted(interfaces)):
            self._selected = rows[self._at(rows)].key
            self._looking, self._first = True, 0

    def _move(self, by: int, interfaces: Interfaces) -> None:
        if self._looking:
            self._first = max(0, self._first + by)
        elif rows := self.sorted(interfaces):
            at = min(max(0, self._at(rows) + by), len(rows) - 1)
            self._selected = rows[at].key if at else None

    def sorted(self, interfaces: Interfaces) -> list[Interface]:
        """Return the interfaces in the selected order. Those with equal values are ordered by mount and unit."""
        value = _ORDERS[self._order].value
        rows = sorted(interfaces, key=lambda one: -value(one))  # stable
        return rows[::-1] if self._inverted else rows

    def _at(self, rows: Sequence[Interface]) -> int:
        return next((at for at, one in enumerate(rows) if one.key == self._selected), 0)

    def lines(
        self, interfaces: Interfaces, troubles: Mapping[str, str], height: int, width: int, clients: str = ""
    ) -> list[Line]:
        """Return the lines of the screen, at most `height`, each of at most `width` cells.

        troubles: an error message for each mount that cannot be read, keyed by directory. clients: the text of the
        watched interface's file `clients`.
        """
        mounts = sorted(interfaces.directories() | troubles.keys())
        if self._help:
            lines = [Line("virtfs top: keys", "title"), *_help(width)]
        elif self._looking:
            lines = self._one(interfaces, troubles, height, width, clients)
        else:
            lines = self._list(interfaces, troubles, mounts, height, width)
        return [Line(cut(one_line(line.text), width), line.style) for line in lines[:height]]

    def _list(
        self, interfaces: Interfaces, troubles: Mapping[str, str], mounts: Sequence[str], height: int, width: int
    ) -> list[Line]:
        rows = self.sorted(interfaces)
        head = [Line(self._title(rows, mounts), "title")] if height > 2 else []
        head += _sentences(troubles, interfaces)[: max(1, height // 3)]
        foot = [Line("q quit  Enter look at one  n r t b d o sort  i invert  h help", "title")] if height > 5 else []
        names = [_named(one, len(mounts) > 1) for one in rows]
        layout = _layout(min(max(map(cells, ("INTERFACE", *names))), _NAME_MAX), width)
        if rows and height - len(head) - len(foot) > 1:
            head.append(Line(_heads(layout), "heads"))
        self._room = max(1, height - len(head) - len(foot))
        at = self._at(rows)
        self._first = min(max(at - self._room + 1, min(self._first, at)), max(0, len(rows) - self._room))
        shown = range(self._first, min(self._first + self._room, len(rows)))
        body = [self._row(rows[i], names[i], layout, i == at) for i in shown]
        if not rows and (not mounts or len(troubles) < len(mounts)):
            body = [Line(text) for text in ((_NO_INTERFACE,) if mounts else _NO_MOUNT)[: self._room]]
        return [*head, *body, *[Line("")] * (self._room - len(body)), *foot]

    def _title(self, rows: Sequence[Interface], mounts: Sequence[str]) -> str:
        where = mounts[0] if len(mounts) == 1 else f"{len(mounts)} mounts"
        order = f"by {_ORDERS[self._order].name}{', inverted' if self._inverted else ''}"
        sums = [sum(one.rates.get(name, 0) for one in rows) for name in ("rx_frames", "tx_frames")]
        drops = sum(one.drops for one in rows)
        rates = f"rx {short(sums[0])}/s  tx {short(sums[1])}/s  drop {short(drops)}/s"
        return f"{where}  {len(rows)} interface{'' if len(rows) == 1 else 's'}  {rates}  {order}"

    def _row(self, one: Interface, name: str, layout: Mapping[str, int], selected: bool) -> Line:
        parts = [padded(cut(name, layout["name"]), layout["name"], "<")]
        for column, width in layout.items():
            if column == "plot":
                parts += plot([rx + tx for rx, tx in one.past], width, 1, self._marks)
            elif column != "name":
                parts.append(padded(_COLUMNS[column].text(one), width, _COLUMNS[column].side))
        text = " ".join(parts)
        return Line(text, "selected" if selected else "alarm" if one.drops or one.virt["lost"] else "plain")

    def _one(
        self, interfaces: Interfaces, troubles: Mapping[str, str], height: int, width: int, clients: str
    ) -> list[Line]:
        one = next((one for one in interfaces if one.key == self._selected), None)
        if one is None:
            return [Line("the interface is gone", "alarm"), Line("Enter back  q quit", "title")]
        head = [Line(f"{one.virt['name']}  {state_of(one.virt)}  {one.directory}", "title")] if height > 2 else []
        own = {directory: why for directory, why in troubles.items() if directory == one.directory}
        head += _sentences(own, interfaces)
        foot = [Line("q quit  Enter back  up down scroll  h help", "title")] if height > 5 else []
        body = [*map(Line, _facts(one)), Line("")]
        rows = clients.splitlines()
        body += [*(Line(row, "plain" if at else "heads") for at, row in enumerate(rows)), Line("")] if rows else []
        for way, name in enumerate(("rx", "tx")):
            numbers = [rates[way] for rates in one.past][-width:]
            body.append(Line(f"{name} frames/s, at most {short(max(numbers, default=0))}", "heads"))
            body += map(Line, plot(numbers, width, _HEIGHT, self._marks))
        body += [Line(""), *_counters(one)]
        self._room = max(1, height - len(head) - len(foot))
        self._first = max(0, min(self._first, len(body) - self._room))
        body = body[self._first : self._first + self._room]
        return [*head, *body, *([Line("")] * (self._room - len(body))), *foot]


def _help(width: int) -> Iterator[Line]:
    yield Line("")
    for line in table(HELP, "<<", width):
        yield Line(line)


def _sentences(troubles: Mapping[str, str], interfaces: Interfaces) -> list[Line]:
    places = sorted(troubles, key=interfaces.place)
    return [Line(f"{directory}: {troubles[directory]}", "alarm") for directory in places]


def _named(one: Interface, several: bool) -> str:
    name: str = one.virt["name"]
    full = f"{one.directory}/{name}" if several else name
    return one_line(full) if cells(full) <= _NAME_MAX else f"…{one_line(full)[1 - _NAME_MAX :]}"


def _layout(name: int, width: int) -> dict[str, int]:
    """Return the columns that fit, in display order, with their widths in cells."""
    fit, left = set(), width - name
    for column in _FIRST:
        if (room := _COLUMNS[column].width + 1) <= left:
            fit.add(column)
            left -= room
    extra = {"plot": left}
    return {"name": name} | {at: it.width + extra.get(at, 0) for at, it in _COLUMNS.items() if at in fit}


def _heads(layout: Mapping[str, int]) -> str:
    heads = [padded("INTERFACE", layout["name"], "<")]
    heads += [
        padded(_COLUMNS[column].head, width, _COLUMNS[column].side)
        for column, width in layout.items()
        if column != "name"
    ]
    return " ".join(heads)


def _facts(one: Interface) -> Iterator[str]:
    virt = one.virt
    yield f"readers {virt['readers']}  queue {virt['queue']}  backlog {virt['backlog']}  mtu {virt['mtu']}"
    yield f"owner {owner_of(virt, 32)}  mode {virt['mode']}  link {virt['address']}  taplink {virt['tap']['address']}"
    for name, text in (("host", host_of(virt)), ("impair", virt["impair"]), ("filter", virt["filter"])):
        if text:
            yield f"{name} {text}"


def _counters(one: Interface) -> Iterator[Line]:
    """Yield a table of the counters. Each line shows an rx counter and the corresponding tx counter."""
    stats: Mapping[str, int] = one.virt["stats"]
    names = list(dict.fromkeys(name.partition("_")[2] for name in stats))
    rows = [("", "RX", "RX/S", "TX", "TX/S")]
    for name in names:
        pair = (f"rx_{name}", f"tx_{name}")
        numbers = [(str(stats[counter]), _rate(counter)(one)) if counter in stats else ("", "") for counter in pair]
        rows.append((name, *numbers[0], *numbers[1]))
    for at, line in enumerate(table(rows, "<>>>>", 2**16)):
        yield Line(line, "plain" if at else "heads")
