"""Virt: an interface, as an object whose attributes are the files below virtN."""

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, Unpack, cast

from virtfs.client import lines, native, waiting
from virtfs.client.folder import Folder, about, open_stream
from virtfs.client.lines import VirtVerbs
from virtfs.client.port import Mode, Opened, Port, flags_of
from virtfs.client.stream import Stream
from virtfs.client.tables import missing
from virtfs.client.texts import one_line
from virtfs.client.values import Setting, Value, size, switch
from virtfs.client.values import lines as lines_of
from virtfs.core.virt import Carrier, Exclusive

Condition = Literal["up", "down", "carrier", "reader", "frame", "gone"]
# What has not happened when wait() ends with TimeoutError.
_LACKING: Final[dict[str, str]] = {
    "up": "{virt} was not up",
    "down": "{virt} was not down",
    "carrier": "the tap of {virt} had no carrier",
    "reader": "{virt} had no reader",
    "frame": "no frame arrived at {virt}",
    "gone": "{virt} was not destroyed",
}
_PIECE: Final = 1 << 20  # maximum number of bytes of a capture file that one write sends


@dataclass(frozen=True, slots=True)
class Client:
    """An open stream of an interface: a line of the file `clients`.

    pid, command: the process that has the stream open. file: the stream's name. taken, waiting, dropped: frame counts.
    uid: the user who opened it.

    >>> with v.open() as port:
    ...     v.clients[0].file
    'frame'
    """

    pid: int
    command: str
    file: str
    taken: int
    waiting: int
    dropped: int
    uid: int


class Host(Folder):
    """The host's end of an interface, the tap: the files below tap/.

    >>> v.host.name, v.host.up, v.host.mtu
    ('tap3', True, 1500)
    """

    __slots__ = ()

    name = Value("name", str, "Its current name.\n\n>>> v.host.name\n'tap3'")
    index = Value("index", int, "Its index in its network namespace.\n\n>>> v.host.index > 0\nTrue")
    address = Setting("address", str, "Its MAC address.\n\n>>> v.host.address = '02:00:00:00:00:03'")
    addresses = Value(
        "addresses",
        lines_of,
        "Its IP addresses, with prefix lengths.\n\n"
        ">>> v.set(inet='10.0.3.1/24')\n>>> v.host.addresses\n['10.0.3.1/24']",
    )
    up = Value("up", switch, "Whether it is up.\n\n>>> v.host.up\nTrue")
    carrier = Value("carrier", switch, "Whether the kernel sees a carrier.\n\n>>> v.host.carrier\nTrue")
    mtu = Value("mtu", int, "Its MTU in bytes.\n\n>>> v.host.mtu\n1500")
    netns = Setting("netns", str, "Its network namespace; '' is that of the mount.\n\n>>> v.host.netns\n''")
    bridge = Setting("bridge", str, "The bridge that it is in, or ''.\n\n>>> v.host.bridge\n''")


class Stats(Folder, Mapping[str, int]):
    """The counters of an interface, by the names of the files in stats/.

    KeyError: there is no such counter. It is also a FileNotFoundError, as if the file itself had been opened.

    >>> v.stats["tx_frames"]
    0
    >>> "rx_dropped" in v.stats, len(v.stats) > 8
    (True, True)
    """

    __slots__ = ()
    __hash__ = Folder.__hash__
    __eq__ = Folder.__eq__

    def __getitem__(self, name: str) -> int:
        try:
            return int(self.read(name))
        except FileNotFoundError:
            if self.path.exists():
                raise missing("counter", name, sorted(self), str(self.path / name)) from None
            raise

    def __iter__(self) -> Iterator[str]:
        return iter(os.listdir(self.path))

    def __len__(self) -> int:
        return len(os.listdir(self.path))

    def __repr__(self) -> str:
        try:
            return f"Stats({dict(self)})"
        except OSError:  # the interface is destroyed
            return super().__repr__()


class Virt(Folder):
    """An interface of a mount.

    Each use of an attribute reads its file, and setting the attribute writes the file. So changes by other programs are
    seen at once. virtfs(5), FILES, describes each file.
    OSError: ENOENT, the interface is destroyed; other errors have the text of last_error.

    >>> v.mtu = 1400
    >>> v.mtu, v.up, v.impair
    (1400, True, '')
    """

    __slots__ = ("number",)

    def __init__(self, top: "str | os.PathLike[str]", number: "int | str | Virt") -> None:
        """Make an object for an interface, which need not exist yet.

        top: the mount point. number: its number, its name or an object. ValueError: it is none of these.
        """
        self.number = _number(number)
        super().__init__(Path(top) / f"virt{self.number}", Path(top))

    @property
    def name(self) -> str:
        """The interface's name.

        >>> v.name
        'virt3'
        """
        return self.path.name

    def __str__(self) -> str:
        return self.name

    address = Setting("address", str, "The MAC address of virt.\n\n>>> v.address = '02:00:00:00:00:07'")
    mtu = Setting("mtu", int, "The largest payload of a frame in bytes.\n\n>>> v.mtu\n1500")
    up = Setting("up", switch, "Whether frames pass.\n\n>>> v.up = False")
    queue = Setting("queue", int, "How many frames may wait for a reader.\n\n>>> v.queue\n256")
    backlog = Setting("backlog", int, "How many frames are kept while nobody reads.\n\n>>> v.backlog = 16")
    strict = Setting("strict", switch, "Whether a frame that cannot be sent raises an error.\n\n>>> v.strict = True")
    exclusive: Setting[Exclusive] = Setting(
        "exclusive",
        lambda text: text,  # type: ignore[arg-type, return-value]
        "Which opens of frame are exclusive: read, both or none.\n\n>>> v.exclusive = 'none'",
    )
    promisc = Setting("promisc", switch, "Whether the tap accepts frames for any address.\n\n>>> v.promisc\nFalse")
    antispoof = Setting(
        "antispoof", switch, "Whether frames whose source is not `address` are dropped.\n\n>>> v.antispoof = True"
    )
    persist = Setting("persist", switch, "Whether the tap outlives the mount.\n\n>>> v.persist\nFalse")
    upopen = Setting("upopen", switch, "Whether opening frame sets the interface up.\n\n>>> v.upopen\nFalse")
    carrier: Setting[Carrier] = Setting(
        "carrier",
        lambda text: text,  # type: ignore[arg-type, return-value]
        "When the tap has a carrier: always, open or off.\n\n>>> v.carrier\n'always'",
    )
    filter = Setting("filter", str, "The filter in tcpdump's language; '' passes all.\n\n>>> v.filter = 'arp or icmp'")
    impair = Setting("impair", str, "How frames are delayed or lost.\n\n>>> v.impair = 'delay 20ms loss 1%'")
    pace = Setting("pace", float, "The speed of inject; 0 is as fast as possible.\n\n>>> v.pace = 0.5")
    history_size = Setting(
        "history_size", size, "How many bytes history() keeps.\n\n>>> v.history_size = '64K'\n>>> v.history_size\n65536"
    )
    description = Setting("description", str, "A note.\n\n>>> v.description = 'the printer'")
    next = Value("next", int, "The length of the next frame in bytes, or 0.\n\n>>> v.next\n0")
    script = Value("ctl", str, "The verbs that make a new interface like this one.\n\n>>> v.script.split()[-1]\n'up'")

    @property
    def host(self) -> Host:
        """The host's end of the wire.

        >>> v.host.name
        'tap3'
        """
        return Host(self.path / "tap", self.top)

    @property
    def stats(self) -> Stats:
        """The counters.

        >>> v.stats["rx_frames"]
        0
        """
        return Stats(self.path / "stats", self.top)

    @property
    def clients(self) -> list[Client]:
        """The open streams of the interface.

        >>> v.clients
        []
        """
        rows = (line.split() for line in self.read("clients").splitlines()[1:])
        return [Client(int(pid), command, file, *map(int, numbers)) for pid, command, file, *numbers in rows]

    @property
    def owner(self) -> int:
        """The user who may use the interface, as a number. It can be set to a number or a name.

        >>> v.owner = "nobody"
        >>> v.owner
        65534
        """
        return os.stat(self.path / "frame").st_uid

    @owner.setter
    def owner(self, user: int | str) -> None:
        self.set(owner=user)

    @property
    def group(self) -> int:
        """The group that may use the interface, as a number. It can be set to a number or a name.

        >>> v.group = "daemon"
        >>> v.group, oct(v.mode)
        (1, '0o660')
        """
        return os.stat(self.path / "frame").st_gid

    @group.setter
    def group(self, group: int | str) -> None:
        self.set(group=group)

    @property
    def mode(self) -> int:
        """The permission bits of the streams.

        >>> v.mode = 0o666
        >>> oct(v.mode)
        '0o666'
        """
        return os.stat(self.path / "frame").st_mode & 0o777

    @mode.setter
    def mode(self, bits: int) -> None:
        self.set(mode=bits)

    def set(self, **verbs: Unpack[VirtVerbs]) -> None:
        """Apply verbs: all of them, or none if one is refused.

        True is the verb alone, and False is its opposite: `up=False` is `down`, and `filter=False` is `-filter`. None
        leaves the verb out. A list repeats the verb. `no_inet="10.0.3.1/24"` is `-inet 10.0.3.1/24`.
        OSError: virtfs refuses the line; `strerror` is the text of last_error. TypeError: True for a verb that needs an
        argument, a value for one that takes none, or a value that is neither a text nor a number.

        >>> v.set(mtu=1400, inet=["10.0.3.1/24", "10.0.4.1/24"], strict=True, impair="delay 20ms")
        >>> v.set(no_inet="10.0.4.1/24", strict=False, impair=False)
        """
        if script := lines.script(verbs):
            self.ctl("\n".join(script))

    def ctl(self, line: str) -> None:
        """Write verbs to the ctl of the interface, in one or more lines. OSError: as for set().

        >>> v.ctl("mtu 1400 -strict")
        """
        self.write("ctl", line)

    def mark(self, text: str) -> None:
        """Record a text in the open captures and the history of the interface, and in the events of the mount.

        >>> with v.capture() as file:
        ...     v.mark("step 2")
        ...     b"step 2" in file.read(65536)
        True
        """
        self.set(mark=one_line("mark", text))

    def destroy(self) -> None:
        """Destroy the interface. Programs that wait on its files get ENXIO.

        >>> v.destroy()
        >>> 3 in net
        False
        """
        Folder(self.top, self.top).write("ctl", f"destroy {self.number}")

    def open(self, mode: Mode = "rw") -> Port:
        """Open `frame`, to send and receive one frame with each call.

        mode: "r", "w" or "rw"; another raises ValueError. OSError: EBUSY, another program receives frames; EACCES,
        permission denied; ENOENT, the interface is destroyed.

        >>> with v.open() as port:
        ...     port.send(frame)
        """
        return Port(self.path / "frame", mode)

    def stream(self, mode: Mode = "rw") -> Stream:
        """Open `stream`, to send and receive many frames with each call. Arguments and errors: as for open().

        >>> with v.stream() as stream:
        ...     stream.send([frame, frame])
        """
        return Stream(self.path / "stream", mode)

    def rx(self) -> Port:
        """Open `rx`, to receive frames of up to 4096 bytes at the speed of a pipe.

        The port can only receive, and its first frame may be a quarter of a second late. recv() goes on waiting while
        the interface is down, and fails with ENXIO after it was destroyed. OSError: EBUSY, a program has the tap.

        >>> with v.rx() as port:
        ...     ping(v)
        ...     port.recv(timeout=5)[12:14].hex()
        '0806'
        """
        return Port(self.path / "rx", "r")

    def hex(self, mode: Mode = "rw") -> io.FileIO:
        r"""Open `hex` as an unbuffered file. Each line is a frame in hexadecimal digits.

        mode: as for open().

        >>> with v.hex() as file:
        ...     file.write(f"{frame.hex()}\n".encode()) > 0
        True
        """
        flags_of(mode)
        return io.FileIO(self.path / "hex", "r+" if mode == "rw" else mode, opener=open_stream)

    def capture(self) -> io.FileIO:
        """Open a live capture as an unbuffered pcapng file. It contains all later frames in both directions.

        A read waits for frames, and returns those that are there; more may follow. history() never waits.
        OSError: EPERM, the server lacks CAP_NET_RAW.

        >>> with v.capture() as file:
        ...     file.read(4).hex()
        '0a0d0d0a'
        """
        return io.FileIO(self.path / "pcap", "r", opener=open_stream)

    def history(self) -> bytes:
        """Return the most recent frames, as many as fit in history_size, as a pcapng file.

        >>> v.history()[:4].hex()
        '0a0d0d0a'
        """
        return (self.path / "history").read_bytes()

    def inject(self, recording: "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO") -> None:
        """Send the frames of a pcap or pcapng file. recording: its path, its contents, or a file open for reading.

        Returns when all frames have been sent. `pace` sets their speed. OSError: EINVAL, the file is malformed or
        truncated (the frames before that have been sent); EBUSY, another program has `inject` open. TypeError: the
        argument is none of these, such as a list of frames or a file that is open as text.

        >>> v.inject(recording)
        >>> v.stats["tx_frames"]
        3
        """
        if isinstance(recording, str | os.PathLike):
            with open(recording, "rb") as file:
                self.inject(file)
            return
        source = _source(recording)
        with Opened(self.path / "inject", os.O_WRONLY) as inject:
            try:
                while piece := memoryview(source.read(_PIECE)):
                    while piece:
                        piece = piece[os.write(inject.fileno(), piece) :]
                os.fsync(inject.fileno())  # fails if the file is truncated
            except OSError as error:
                raise about(error, inject.path) from None

    def tap(self, vnet_hdr: bool = True) -> "native.Tap":
        """Borrow the descriptor of the tap itself, for native speed. close() gives it back.

        vnet_hdr: whether a virtio_net_hdr precedes each frame. OSError: EBUSY, a program is receiving frames, or the
        interface has a cable or an impairment; EPERM, antispoof is on; EACCES, permission denied.

        >>> with v.tap(vnet_hdr=False) as tap:
        ...     os.write(tap.fileno(), frame) == len(frame)
        True
        """
        return native.Tap(self.path / "fd", {} if vnet_hdr else {"vnet_hdr": 0})

    def lend(self) -> "native.Loan":
        """Make virtfs release the tap, so that this user may attach to it through /dev/net/tun. close() ends the loan.

        OSError: as for tap().

        >>> with v.lend() as loan:
        ...     loan.tap
        'tap3'
        """
        return native.Loan(self.path / "fd", {"lend": True})

    def wait(self, condition: Condition, timeout: float | None = None) -> None:
        """Wait until a condition is true: up, down, carrier, reader, frame (one arrives) or gone.

        timeout: the longest time to wait, in seconds; None waits for ever. ValueError: there is no such condition.
        OSError: TimeoutError, the condition did not become true in this time; ENXIO, the interface is destroyed.

        >>> v.wait("carrier", timeout=5)
        >>> v.wait("reader", timeout=0)
        Traceback (most recent call last):
        TimeoutError: [Errno 110] virt3 had no reader within 0 s: '/mnt/virt/virt3/wait/reader'
        """
        if condition not in _LACKING:
            raise ValueError(f"{condition!r} is not a condition: these are {', '.join(_LACKING)}")
        with Opened(self.path / "wait" / condition, os.O_RDONLY) as file:
            waiting.read(file.fileno(), 16, file.path, timeout, _LACKING[condition].format(virt=self))


def _number(what: object) -> int:
    """Return the number of an interface, which is given by its number, its name or an object."""
    if isinstance(what, Virt):
        return what.number
    if isinstance(what, int) and not isinstance(what, bool):
        return what
    if isinstance(what, str) and (digits := re.fullmatch(r"(?:virt)?(0|[1-9][0-9]*)", what)):
        return int(digits[1])
    raise ValueError(f"{what!r} is not an interface: give a number, or a name such as 'virt3'")


def _source(recording: object) -> BinaryIO:
    """Return the contents of a recording, or a recording that is open for reading, as a file. TypeError: it is none."""
    if isinstance(recording, bytes | bytearray | memoryview):
        return io.BytesIO(recording)
    if not hasattr(recording, "read") or isinstance(recording, io.TextIOBase):
        ways = "give a path, the bytes of a capture, or a file open in binary mode"
        raise TypeError(f"{type(recording).__name__} is no recording: {ways}; single frames go through open().send()")
    return cast("BinaryIO", recording)
