"""One interface: what is set, what its host's end is like, what has been counted."""

from dataclasses import dataclass, field, fields
from typing import Literal

from virtfs.core.ethernet import frame_bounds
from virtfs.core.ids import Gid, Uid, Unit
from virtfs.core.impairment import UNIMPAIRED, Impairment
from virtfs.core.ip import IpInterface

Exclusive = Literal["read", "both", "none"]
Carrier = Literal["always", "open"]

MODE_NEW, MODE_GROUP = 0o600, 0o660  # of the streams: as made, and once a group has it
QUEUE = 256  # frames, unless the verb queue says otherwise


@dataclass(slots=True)
class Counters:
    """Frames and bytes since the interface was made; in (rx) is towards virt. The files of stats/ bear these names.

    What the host sent = rx_frames + rx_dropped + what waits. What was written = tx_frames + tx_dropped;
    tx_oversize, tx_short, tx_down and tx_spoofed say for what tx_dropped was.
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


@dataclass(slots=True)
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


@dataclass(slots=True)
class Virt:
    """One interface. Its host's end belongs to the kernel and is mirrored in `host`."""

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
    filter: str = ""  # in tcpdump's language; "" lets all in
    impairment_in: Impairment = UNIMPAIRED
    impairment_out: Impairment = UNIMPAIRED
    pace: float = 0  # of inject: a factor of the recorded timing, 0 as fast as it goes
    history_size: int = 0  # bytes
    netns: str = ""  # where the host's end is, by name or process; "" for the daemon's own namespace
    description: str = ""
    lost: bool = False  # the tap vanished, by another's hand
    counters: Counters = field(default_factory=Counters)

    @property
    def name(self) -> str:
        """virt<n>"""
        return f"virt{self.unit}"

    @property
    def tap(self) -> str:
        """tap<n>, as it was named when made"""
        return f"tap{self.unit}"

    @property
    def bounds(self) -> tuple[int, int]:
        """The shortest and the longest frame that may be written, in bytes."""
        return frame_bounds(self.host.mtu)
