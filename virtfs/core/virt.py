"""One interface: its settings, its host's end as the kernel last described it, its state, its counters.

An interface's state:

              ┌──────── up ────────┐
    create ─► DOWN                 UP        move: the tap is in another network namespace, the state stays
              └─◄───── down ───────┘
                 │ lose          │ lose      the tap vanished: deleted by another program, or with its namespace
                 └────► LOST ◄───┘
                          │
    any of these ──destroy──► DESTROYED

A Virt changes only through its methods. Each notifies the listeners once, so that no caller has to remember to update
the wire.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Final, Literal

from virtfs.core.ethernet import frame_bounds
from virtfs.core.ids import Gid, Uid, Unit
from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.ip import IpInterface

Exclusive = Literal["read", "both", "none"]
Carrier = Literal["always", "open"]

MODE_NEW, MODE_GROUP = 0o600, 0o660  # of the device files: as created, and once a group is set
QUEUE = 256  # frames, unless the verb queue says otherwise


class Origin(Enum):
    """How an interface came to be."""

    MADE = "its tap was made by virtfs and is removed with it"
    FOUND = "its tap was there before, and is put back as it was found"
    CLONED = "it was made by an open of clone, and ends with its last close"


class State(Enum):
    """What an interface can do now."""

    DOWN = "frames are dropped"
    UP = "frames pass"
    LOST = "the tap has vanished; only `destroy` is left"
    DESTROYED = "it is no longer part of the mount"


Step = Literal["up", "down", "move", "lose", "destroy"]

TRANSITIONS: Final[dict[State, dict[Step, State]]] = {
    State.DOWN: {"up": State.UP, "move": State.DOWN, "lose": State.LOST, "destroy": State.DESTROYED},
    State.UP: {"down": State.DOWN, "move": State.UP, "lose": State.LOST, "destroy": State.DESTROYED},
    State.LOST: {"destroy": State.DESTROYED},
    State.DESTROYED: {},
}


@dataclass(slots=True)
class Counters:
    """Frames and bytes since the interface was created; in (rx) is towards virt. The files of stats/ have these names.

    What the host sent = rx_frames + rx_dropped + what is queued. What was written = tx_frames + tx_dropped;
    tx_oversize, tx_short, tx_down and tx_spoofed give reasons for tx_dropped.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    rx_dropped: int = 0  # by virtfs; stats/rx_dropped adds the tap's own
    tx_frames: int = 0
    tx_bytes: int = 0
    tx_dropped: int = 0
    tx_oversize: int = 0
    tx_short: int = 0
    tx_down: int = 0
    tx_spoofed: int = 0


COUNTERS = tuple(f.name for f in fields(Counters))


@dataclass(frozen=True, slots=True)
class HostEnd:
    """The tap as the kernel last described it."""

    name: str
    index: int
    up: bool
    mtu: int
    address: bytes
    carrier: bool
    queue: int  # txqueuelen, frames
    dropped: int = 0  # the kernel's tx_dropped since virtfs attached
    addresses: tuple[IpInterface, ...] = ()
    bridge: str = ""  # the name of the bridge it is in
    promisc: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Virt:
    """One interface. Its host's end belongs to the kernel and is mirrored in `host`.

    Read its fields; change them by `set`, `set_host`, `move`, `lose` and `destroy`.
    """

    unit: Unit
    address: bytes
    host: HostEnd
    owner: Uid = Uid(0)
    group: Gid = Gid(0)
    mode: int = MODE_NEW
    strict: bool = False
    exclusive: Exclusive = "read"
    backlog: int = 0
    antispoof: bool = False
    upopen: bool = False
    carrier: Carrier = "always"
    persist: bool = False
    filter: str = ""  # in tcpdump's language; "" accepts all frames
    impairment_in: Impairment = UNIMPAIRED
    impairment_out: Impairment = UNIMPAIRED
    pace: float = 0  # speed of inject relative to the recorded timing; 0: as fast as possible
    history_size: int = 0  # bytes
    description: str = ""
    netns: str = ""  # where the host's end is, by name or process; "" is the daemon's own namespace
    origin: Origin = Origin.MADE
    state: State = State.DOWN
    counters: Counters = field(default_factory=Counters)
    listeners: list[Callable[[], None]] = field(default_factory=list, repr=False)  # called after each change

    def __post_init__(self) -> None:
        if self.host.up and self.state is State.DOWN:
            self._replace(state=State.UP)

    @property
    def name(self) -> str:
        """virt<n>"""
        return f"virt{self.unit}"

    @property
    def tap(self) -> str:
        """tap<n>, the tap's name when virtfs opened it"""
        return f"tap{self.unit}"

    @property
    def lost(self) -> bool:
        """Whether the tap is gone for good."""
        return self.state in (State.LOST, State.DESTROYED)

    @property
    def bounds(self) -> tuple[int, int]:
        """The shortest and the longest frame that may be written, in bytes."""
        return frame_bounds(self.host.mtu)

    def snapshot(self) -> "Virt":
        """Return a copy with the same settings and the same host's end, but without listeners."""
        return replace(self, listeners=[])

    def set(self, **settings: Any) -> None:
        """Change settings, named as the fields. TypeError: a field that another method changes."""
        if unknown := settings.keys() - SETTINGS:
            raise TypeError(f"no settings: {unknown}")
        self._change(**settings)

    def set_host(self, host: HostEnd) -> None:
        """Store the state of the host's end that the kernel reports. ValueError: the tap is gone."""
        if host.up == self.host.up:
            if self.lost:
                raise ValueError(f"{self.name} is {self.state.name}: it has no host's end")
            self._change(host=host)
        else:
            self._step("up" if host.up else "down", host=host)

    def move(self, netns: str) -> None:
        """Record the network namespace that the tap is in now. ValueError: the tap is gone."""
        self._step("move", netns=netns)

    def lose(self) -> None:
        """Record that the tap has vanished. ValueError: it had already vanished."""
        self._step("lose", host=replace(self.host, up=False, carrier=False))

    def destroy(self) -> None:
        """Record that the interface is destroyed. ValueError: it already was."""
        self._step("destroy", host=replace(self.host, up=False, carrier=False))

    def _step(self, step: Step, **changes: object) -> None:
        state = TRANSITIONS[self.state].get(step)
        if state is None:
            raise ValueError(f'{self.name} is {self.state.name}: it cannot "{step}"')
        self._change(state=state, **changes)

    def _change(self, **changes: object) -> None:
        self._replace(**changes)
        for listener in self.listeners:
            listener()

    def _replace(self, **changes: object) -> None:
        for name, value in changes.items():
            object.__setattr__(self, name, value)


_KERNEL = {"unit", "host", "netns", "origin", "state", "counters", "listeners"}
SETTINGS: Final = frozenset(f.name for f in fields(Virt)) - _KERNEL
