"""One interface: its settings, its state, its counters, and the host's end as the kernel last described it.

An interface's state:

              ┌──────── up ────────┐
    create ─► DOWN                 UP        move: the tap enters another network namespace
              └─◄───── down ───────┘
                 │ lose          │ lose      the tap was deleted, by another program or with its namespace
                 └────► LOST ◄───┘
                          │
    any of these ──destroy──► DESTROYED

A Virt changes only through its methods. Each method notifies the listeners once, so no caller has to remember to update
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
Carrier = Literal["always", "open", "off"]

MODE_NEW, MODE_GROUP = 0o600, 0o660  # mode of the device files of a new interface, and after the verb `group`
QUEUE = 256  # frames; default of the verb `queue`


class Origin(Enum):
    """How an interface and its tap were created."""

    MADE = "virtfs created the tap, and removes it with the interface"
    FOUND = "the tap existed before; virtfs restores its earlier state"
    CLONED = "an open of clone created the interface; the last close destroys it"
    SHELL = "virtfs shell --net created the interface; destroy all leaves it in place"


class State(Enum):
    """What an interface can do now."""

    DOWN = "frames are dropped"
    UP = "frames pass"
    LOST = "the tap has vanished; `ensure` replaces the interface with a new one"
    DESTROYED = "the interface is no longer part of the mount"


Step = Literal["up", "down", "move", "lose", "destroy"]

TRANSITIONS: Final[dict[State, dict[Step, State]]] = {
    State.DOWN: {"up": State.UP, "move": State.DOWN, "lose": State.LOST, "destroy": State.DESTROYED},
    State.UP: {"down": State.DOWN, "move": State.UP, "lose": State.LOST, "destroy": State.DESTROYED},
    State.LOST: {"destroy": State.DESTROYED},
    State.DESTROYED: {},
}

_TAPLESS: Final = (State.LOST, State.DESTROYED)  # a constant, because the attributes of an Enum are slow


@dataclass(slots=True)
class Counters:
    """Frames and bytes since the interface was created. The files of stats/ have the names of these fields.

    rx: frames from the host to virt. tx: frames from virt to the host. In both directions, at all times, with the
    counters of that direction:

        frames that came in + duplicated = frames + dropped + frames that wait in a queue or in an impairment

    duplicated counts the additional frames that the impairment `duplicate` has made. rx_lost, rx_overlimit, tx_lost,
    tx_overlimit, tx_oversize, tx_short, tx_down and tx_spoofed count the frames in rx_dropped and tx_dropped by the
    reason for the drop. A reordered or corrupted frame is also counted in frames or dropped. doc/reliability.md has the
    details.
    """

    rx_frames: int = 0
    rx_bytes: int = 0
    rx_dropped: int = 0  # dropped by virtfs; the file stats/rx_dropped adds the frames that the tap dropped
    rx_lost: int = 0
    rx_overlimit: int = 0
    rx_duplicated: int = 0
    rx_reordered: int = 0
    rx_corrupted: int = 0
    tx_frames: int = 0
    tx_bytes: int = 0
    tx_dropped: int = 0
    tx_lost: int = 0
    tx_overlimit: int = 0
    tx_duplicated: int = 0
    tx_reordered: int = 0
    tx_corrupted: int = 0
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
    dropped: int = 0  # frames that the tap has dropped since virtfs attached to it (the kernel's tx_dropped)
    addresses: tuple[IpInterface, ...] = ()
    bridge: str = ""  # name of the bridge that the tap is in, "" if it is in none
    promisc: bool = False

    def or_more(self, now: "HostEnd") -> "HostEnd":
        """Return `now`, but with everything of this HostEnd that the deletion of the tap would take away.

        Before the kernel reports that a tap is gone, it reports that the tap is down, has left its bridge and has no
        addresses (net/core/dev.c unregister_netdevice_many_notify).
        """
        more = tuple(address for address in now.addresses if address not in self.addresses)
        fewer = not set(self.addresses) <= set(now.addresses)
        return replace(
            now,
            up=self.up or now.up,
            bridge=now.bridge or self.bridge,
            addresses=self.addresses + more if fewer else now.addresses,
        )


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Virt:
    """One interface. The host's end belongs to the kernel; the field `host` mirrors it.

    The field `kept` has the host's end for the lines of ctl. It differs from `host` while a change that the kernel has
    reported may belong to the deletion of the tap. Once the tap is gone, it has the state before the deletion.

    The fields are read directly, and changed by the methods set(), set_host(), move(), lose() and destroy().
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
    filter: str = ""  # a filter expression of tcpdump(8); "" passes all frames
    impairment_in: Impairment = UNIMPAIRED
    impairment_out: Impairment = UNIMPAIRED
    pace: float = 0  # speed of inject relative to the recording; 0 means as fast as possible
    history_size: int = 0  # bytes
    description: str = ""
    netns: str = ""  # network namespace of the host's end, as a name or a process ID; "" is the daemon's own
    origin: Origin = Origin.MADE
    state: State = State.DOWN
    counters: Counters = field(default_factory=Counters)
    # Called after each change up to destroy(), except one of `kept` alone.
    listeners: list[Callable[[], None]] = field(default_factory=list, repr=False)
    # Called after a change of `kept` alone, which changes only the lines of ctl.
    line_listeners: list[Callable[[], None]] = field(default_factory=list, repr=False)
    version: int = field(default=0, repr=False)  # the number of changes so far
    kept: HostEnd = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", self.host)
        if self.host.up and self.state is State.DOWN:
            self._replace(state=State.UP)

    @property
    def name(self) -> str:
        """virt<n>"""
        return f"virt{self.unit}"

    @property
    def tap(self) -> str:
        """tap<n>, the name under which virtfs opened the tap; the name may have changed since"""
        return f"tap{self.unit}"

    @property
    def lost(self) -> bool:
        """Whether the interface has lost its tap or is destroyed."""
        return self.state in _TAPLESS

    @property
    def saved(self) -> bool:
        """Whether lines of ctl recreate the interface. If not, it belongs to a program, and ends with it."""
        return self.origin not in (Origin.CLONED, Origin.SHELL)

    @property
    def bounds(self) -> tuple[int, int]:
        """The minimum and the maximum length, in bytes, of a frame that a program may write."""
        return frame_bounds(self.host.mtu)

    def snapshot(self) -> "Virt":
        """Return a copy of the interface with all fields except the listeners."""
        return replace(self, listeners=[])

    def set(self, **settings: Any) -> None:
        """Change settings. The keywords are names of fields.

        TypeError: a keyword is not one of SETTINGS; other methods change the other fields.
        """
        if unknown := settings.keys() - SETTINGS:
            raise TypeError(f"not settings: {unknown}")
        self._change(**settings)

    def set_host(self, host: HostEnd, *, sure: bool = True) -> None:
        """Store the host's end as the kernel reports it. ValueError: the interface no longer has a tap.

        sure: whether the tap still existed when it had this state. If False, the change may be a part of the tap's
        deletion, and `kept` keeps what the change takes away.
        """
        kept = host if sure else self.kept.or_more(host)
        if host.up == self.host.up:
            if self.lost:
                raise ValueError(f"{self.name} is {self.state.name}: it has no host's end")
            if host == self.host and kept != self.kept:
                self._replace(kept=kept)
                for listener in self.line_listeners:
                    listener()
            else:
                self._change(host=host, kept=kept)
        else:
            self._step("up" if host.up else "down", host=host, kept=kept)

    def move(self, netns: str) -> None:
        """Record the network namespace that the tap is in now. ValueError: the interface no longer has a tap."""
        self._step("move", netns=netns)

    def lose(self) -> None:
        """Record that the tap has vanished. ValueError: the interface is already in state LOST or DESTROYED."""
        self._step("lose", host=self._unplugged())

    def set_origin(self, origin: Origin) -> None:
        """Set where the tap of a lost interface came from. ValueError: the interface still has its tap."""
        if self.state is not State.LOST:
            raise ValueError(f"{self.name} is {self.state.name}: its tap shows where it comes from")
        self._replace(origin=origin)

    def keep_bridge(self, name: str) -> None:
        """Set the bridge in the lines of ctl of a lost interface. ValueError: the interface still has its tap."""
        if self.state is not State.LOST:
            raise ValueError(f"{self.name} is {self.state.name}: the kernel has its bridge")
        self._replace(kept=replace(self.kept, bridge=name))
        for listener in self.line_listeners:
            listener()

    def destroy(self) -> None:
        """Record that the interface is destroyed. ValueError: the interface is already in state DESTROYED."""
        self._step("destroy", host=self._unplugged())
        # The listeners refer to the interface. Without them, it is freed as soon as nothing else refers to it.
        self.listeners.clear()
        self.line_listeners.clear()

    def _unplugged(self) -> HostEnd:
        """Return the host's end as it is without its tap."""
        host = self.host
        return replace(host, up=False, carrier=False) if host.up or host.carrier else host

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
        object.__setattr__(self, "version", self.version + 1)


# The fields that set() does not change.
_KERNEL = {"unit", "host", "kept", "netns", "origin", "state", "counters", "listeners", "line_listeners", "version"}
SETTINGS: Final = frozenset(f.name for f in fields(Virt)) - _KERNEL
