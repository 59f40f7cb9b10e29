"""Events: what happens in a mount, from the file `events`."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from errno import ENXIO
from typing import Final, Literal

from virtfs.client import waiting
from virtfs.client.port import Opened
from virtfs.core.events import Event as Kind

_ROOM = 65536
# The keys whose values are names, even if they consist of digits.
_TEXTS: Final = {"bridge", "file", "member", "peer", "text"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: a line of the file `events`.

    time: when it happened, in seconds since 1970. kind: what happened; see virtfs(5), EVENTS. The kind "missed" means
    that this reader was too slow and has missed values["events"] events. name: the interface or bridge, or "state".
    values: the values of the event, by key. Numbers are int. Others are str, in which a blank stays escaped as \\x20.

    >>> with net.events() as events, net.clone() as temporary:
    ...     temporary.mtu = 1400
    ...     events.get(timeout=5).kind, events.get(timeout=5).values
    ('create', {'mtu': 1400})
    """

    time: float
    kind: Kind | Literal["missed"]
    name: str
    values: Mapping[str, str | int] = field(default_factory=dict)


def parse(line: str) -> Event:
    """Return the event that a line describes.

    >>> parse("1764380000.250000 carrier virt3 carrier=1")
    Event(time=1764380000.25, kind='carrier', name='virt3', values={'carrier': 1})
    """
    time, kind, name, *pairs = line.split(" ")
    if kind == "lost" and name.isdecimal():
        return Event(float(time), "missed", "", {"events": int(name)})
    values = {key: _value(key, text) for key, _, text in (pair.partition("=") for pair in pairs)}
    return Event(float(time), kind, name, values)  # type: ignore[arg-type]


def _value(key: str, text: str) -> str | int:
    return int(text) if key not in _TEXTS and text.isdecimal() else text


class Lines:
    """Splits the data of the file `events` into events."""

    def __init__(self) -> None:
        self._begun = b""  # an incomplete line
        self._lines: deque[bytes] = deque()

    def feed(self, data: bytes) -> None:
        """Add data that read(2) has returned. OSError: ENXIO, there is no data, because the mount has ended."""
        if not data:
            raise OSError(ENXIO, "the mount has ended")
        *lines, self._begun = (self._begun + data).split(b"\n")
        self._lines.extend(lines)

    def next(self) -> Event | None:
        """Return the next event, or None if no complete line is left."""
        return parse(self._lines.popleft().decode(errors="surrogateescape")) if self._lines else None


class Events(Opened):
    """An open `events`: an iterator over the events that happen after the open. Not thread-safe.

    One read(2) may deliver several events, which this object keeps. So wait with select(2) only after get(timeout=0)
    has raised TimeoutError.

    >>> with net.events() as events, net.clone() as temporary:
    ...     next(events).kind
    'create'
    """

    __slots__ = ("_lines",)

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        """Open the file. path: the path of the file `events`."""
        super().__init__(path, os.O_RDONLY)
        self._lines = Lines()

    def get(self, timeout: float | None = None) -> Event:
        """Wait for an event and return it.

        timeout: the longest time to wait, in seconds; None waits for ever.
        OSError: TimeoutError, no event in this time; ENXIO, the mount has ended.

        >>> with net.events() as events, net.clone() as temporary:
        ...     events.get(timeout=5).name == temporary.name
        True
        """
        while (event := self._lines.next()) is None:
            self._lines.feed(waiting.read(self.fileno(), _ROOM, self.path, timeout))
        return event

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """Wait for an event and return it. It never raises StopIteration; OSError: ENXIO, the mount has ended.

        >>> with net.events() as events, net.clone() as temporary:
        ...     next(events).name == temporary.name
        True
        """
        return self.get()
