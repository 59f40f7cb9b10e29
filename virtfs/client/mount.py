"""Mount: a mounted virtfs, with its interfaces, bridges and cables."""

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack, cast

from virtfs.client import lines
from virtfs.client.bridge import Bridge
from virtfs.client.cable import Cable
from virtfs.client.events import Events
from virtfs.client.folder import Folder, Missing, open_stream, read_text
from virtfs.client.lines import BridgeVerbs, Impairment, VirtVerbs
from virtfs.client.port import Opened
from virtfs.client.tables import Table
from virtfs.client.texts import Named, one_line
from virtfs.client.values import Value
from virtfs.client.virt import Virt
from virtfs.core.verbs import BRIDGE

M = TypeVar("M", bound="Mount")
End = int | str | Virt  # an end of a cable: a number, a Virt, or the word for the end in a line of ctl


def _counters(text: str) -> Table[Table[int]]:
    """Return the counters in the text of the file `stats`, keyed by interface name and then by counter name."""
    (_, *names), *rows = (line.split() for line in text.splitlines())
    counters = {row[0]: Table("counter", dict(zip(names, map(int, row[1:]), strict=True))) for row in rows}
    return Table("interface", counters)


def _is_mount(path: Path) -> bool:
    """Return whether a directory is the top of a mount. OSError: ENOTCONN, its server is dead."""
    try:
        return read_text(path / "version").startswith("virtfs ")
    except (FileNotFoundError, NotADirectoryError):
        return False


def _around(path: Path) -> str:
    """Return the end of the error message for a path that is no mount: the mount around it, or "" if there is none."""
    for directory in path.parents:
        with suppress(OSError):
            if _is_mount(directory):
                return f': it is inside the one at "{directory}"'
    return ""


class Mount(Folder):
    """A mounted virtfs.

    At the end of a `with` statement, close() is called, which ends the mount only if virtfs.mount() made it.

    >>> with virtfs.Mount("/mnt/virt") as net:
    ...     len(net)
    2
    """

    __slots__ = ()

    def __init__(self, directory: "str | os.PathLike[str] | None" = None) -> None:
        """Make an object for an existing mount.

        directory: the mount point; by default $VIRTFS, which `virtfs shell` sets, or /mnt/virt.
        OSError: ENOENT, no virtfs is mounted there; ENOTCONN, its server is dead.

        >>> virtfs.Mount("/nowhere")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] no virtfs is mounted here: '/nowhere'
        """
        path = Path(os.environ.get("VIRTFS", "/mnt/virt") if directory is None else directory).absolute()
        super().__init__(path, path)
        if not _is_mount(path):
            in_test = directory is None and "VIRTFS" not in os.environ and "PYTEST_CURRENT_TEST" in os.environ
            advice = ": in a test, use the fixture virtfs_mount" if in_test else _around(path)
            raise OSError(errno.ENOENT, f"no virtfs is mounted here{advice}", str(path))

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the mount if virtfs.mount() made it; otherwise do nothing.

        >>> net.close()
        """

    # Interfaces

    def __getitem__(self, what: int | str | Virt) -> Virt:
        """Return an interface. KeyError, which is also a FileNotFoundError: there is none.

        what: a number, a name or an object.

        >>> net[3].name, net["virt3"] == net[3]
        ('virt3', True)
        """
        path = what.path if isinstance(what, Virt) else self.path / f"virt{str(what).removeprefix('virt')}"
        number = path.name.removeprefix("virt")
        if path.parent != self.path or not number.isdecimal() or not path.exists():
            raise Missing(errno.ENOENT, "no such interface", str(path))
        return Virt(self.path, int(number))

    def __contains__(self, what: object) -> bool:
        """Return whether an interface exists. what: a number, a name or an object.

        >>> 3 in net, "virt3" in net, net[3] in net, 7 in net
        (True, True, True, False)
        """
        with suppress(Missing):
            return isinstance(what, int | str | Virt) and bool(self[what].name)
        return False

    def __iter__(self) -> Iterator[Virt]:
        """Yield the interfaces, by number.

        >>> [v.name for v in net]
        ['virt3', 'virt4']
        """
        return (Virt(self.path, number) for number in self._numbers())

    def __len__(self) -> int:
        """Return the number of interfaces.

        >>> len(net)
        2
        """
        return len(self._numbers())

    def __bool__(self) -> bool:
        return True

    def _numbers(self) -> list[int]:
        names = (name.removeprefix("virt") for name in os.listdir(self.path) if name.startswith("virt"))
        return sorted(int(name) for name in names if name.isdecimal())

    def create(self, number: int | str | None = None, **verbs: Unpack[VirtVerbs]) -> Virt:
        """Create an interface with these verbs, and return it.

        number: a number, or a name such as "virt5". Without one, the interface gets the lowest free number, and a
        random address unless you give `link`. verbs: those of Virt.set().
        ValueError: the name is not that of an interface. OSError: EEXIST, the interface exists; EPERM or EACCES, you
        are not root; any other errno, a verb is refused, and nothing is created. `strerror` is the text of last_error.

        >>> net.create(5, up=True, mtu=1400, inet="10.0.5.1/24", owner="nobody")
        Virt('/mnt/virt/virt5')
        """
        if number is None:
            return self._create_free(verbs)
        virt = Virt(self.path, number)
        self._with_verbs(f"create {virt.number}", virt, lines.script(verbs))
        return virt

    def _with_verbs(self, command: str, virt: Virt, script: list[str]) -> None:
        """Write a command with the first line of a script, and the other lines as changes of the interface."""
        first, *more = script or [""]
        self.ctl("\n".join([f"{command} {first}", *(f"{virt.name} {line}" for line in more)]))

    def _create_free(self, verbs: VirtVerbs) -> Virt:
        """Create an interface with the lowest free number, and find it by its address.

        The server does not return the number. Looking for a new interface is not enough, because another program may
        create one at the same time.
        """
        address = verbs.get("link") or f"b2:0a:{os.urandom(4).hex(':')}"
        before = {*self._numbers()}
        first, *more = lines.script({**verbs, "link": address})
        self.ctl(f"create {first}")
        for virt in sorted(self, key=lambda virt: virt.number in before):
            with suppress(FileNotFoundError):  # the interface has been destroyed in the meantime
                if virt.address == address.lower().replace("-", ":"):
                    if more:
                        virt.ctl("\n".join(more))
                    return virt
        raise OSError(errno.ENOENT, "the new interface has already been destroyed", str(self.path))

    def ensure(self, number: int | str | Virt, **verbs: Unpack[VirtVerbs]) -> Virt:
        """Create an interface unless it exists, apply verbs to it, and return it; idempotent. Errors: as for create().

        >>> net.ensure(3, mtu=1400) == net.ensure(3, mtu=1400) == v
        True
        """
        virt = Virt(self.path, number)
        self._with_verbs(f"ensure {virt.number}", virt, lines.script(verbs))
        return virt

    def destroy(self, what: int | str | Virt | Bridge) -> None:
        """Destroy an interface or a bridge, or everything.

        what: a number, a name, or an object; "all" for every interface, bridge and cable.
        OSError: ENXIO, it does not exist.

        >>> net.destroy(3)
        """
        self.ctl(f"destroy {one_line('destroy', what)}")

    @contextmanager
    def clone(self) -> Iterator[Virt]:
        """Create an interface with the lowest free number, and destroy it at the end of the `with` statement.

        The interface is also destroyed if the program is killed.

        >>> with net.clone() as temporary:
        ...     temporary.up = True
        """
        with Opened(self.path / "clone", os.O_RDWR) as file:
            yield Virt(self.path, int(os.read(file.fileno(), 64)))

    # Commands

    def ctl(self, text: str) -> None:
        """Write one or more lines of commands to ctl.

        OSError: a line is refused. The lines before it stay in effect. `strerror` is the text of last_error.

        >>> net.ctl("create 5 up mtu 9000")
        >>> net.ctl("virt5 mtu 66000")
        Traceback (most recent call last):
        OSError: [Errno 34] "virt5 mtu 66000": mtu: "66000" is outside the range 68 to 65521: '/mnt/virt/ctl'
        """
        self.write("ctl", text)

    def retry(self) -> None:
        """Retry the lines of the state file that could not be replayed. OSError: some of them fail again.

        >>> net.retry()
        """
        self.ctl("retry")

    def mark(self, text: str) -> None:
        """Record a text in the open captures and histories of all interfaces, and in the events.

        >>> net.mark("step 2")
        """
        self.ctl(f"mark {one_line('mark', text)}")

    def check(self, line: str) -> None:
        """Test, without changing anything, whether a line of ctl would succeed. OSError: it would be refused.

        >>> net.check("create 7 up mtu 9000")
        >>> 7 in net
        False
        """
        self.ctl(f"check {one_line('check', line)}")

    def cable(self, a: End, b: End, impair: str = "", **words: Unpack[Impairment]) -> Cable:
        """Connect the host's ends of two interfaces with a cable. Return the cable.

        Programs that have the frames of the interfaces open are not connected: use a bridge for them.

        impair: the impairment of the cable, such as `"in delay 20ms out loss 1%"`. words: an impairment of both
        directions, as keyword arguments, which can be added to a text: `"out loss 1%", seed=7`.
        OSError: EEXIST, this cable exists; EBUSY, one of the two has another cable. TypeError: a time, a share or a
        rate in `words` has no unit, or a word of them is also in the text.

        >>> net.cable(3, 4, delay="20ms", loss="1%", seed=7).ends
        ('virt3', 'virt4')
        """
        ends = (_end(a), _end(b))
        text = lines.impairment(impair, words)
        self.ctl(f"cable {' '.join(ends)} {text}")
        return Cable(self, ends, text)

    def uncable(self, a: End, b: End | None = None) -> None:
        """Remove the cable between two ends, or that of `a`, which has only one. OSError: ENOENT, there is none.

        >>> cable = net.cable(3, 4)
        >>> net.uncable(4, 3)
        >>> cable = net.cable(3, 4)
        >>> net.uncable(4)
        """
        self.ctl(f"uncable {_end(a)} {'' if b is None else _end(b)}")

    @property
    def cables(self) -> list[Cable]:
        """The cables of the mount.

        >>> cable = net.cable(3, 4, delay="20ms")
        >>> [cable.ends for cable in net.cables]
        [('virt3', 'virt4')]
        """
        return [Cable(self, tuple(cable["ends"]), cable["impair"]) for cable in self.status()["cables"]]

    def bridge(self, name: str | None = None, **verbs: Unpack[BridgeVerbs]) -> Bridge:
        """Create a bridge unless it exists, apply verbs to it, and return it; idempotent.

        name: "bridge" and a number, unless a bridge of the host is adopted. Another mount in the network namespace
        that uses the name uses the same bridge. Without a name, the bridge gets the number of the first interface in
        `add`, which no other mount there has.
        OSError: ENXIO, an interface in `add` does not exist, or its tap is in another network namespace than the mount.
        ValueError: there is no name, and `add` does not begin with an interface of the mount.

        >>> net.bridge("bridge0", up=True, add=[net[3], net[4]]).members
        ['tap3', 'tap4']
        >>> net.bridge(up=True, add=net.create(7)).name
        'bridge7'
        """
        if name is None:
            verbs["add"] = members = _several(verbs.get("add"))  # a list, since an iterator can be read only once
            name = f"bridge{_first_number(members)}"
        self.ctl(f"ensure {one_line('ensure', name)} {lines.words(verbs, BRIDGE)}")
        return Bridge(self.path, name)

    @property
    def bridges(self) -> Table[Bridge]:
        """The bridges, by name. KeyError, which is also a FileNotFoundError: there is none with this name.

        >>> list(net.bridges)
        ['bridge0']
        """
        names = sorted(os.listdir(self.path / "bridge"))
        return Table("bridge", {name: Bridge(self.path, name) for name in names})

    # Streams and reports

    def events(self) -> Events:
        """Open the stream of events in this mount. It starts with the next event.

        >>> with net.events() as events, net.clone() as temporary:
        ...     next(events).kind
        'create'
        """
        return Events(self.path / "events")

    def capture(self) -> io.FileIO:
        """Open a live capture of all interfaces, including those created later, as an unbuffered pcapng file.

        >>> with net.capture() as file:
        ...     file.read(4).hex()
        '0a0d0d0a'
        """
        return io.FileIO(self.path / "pcap", "r", opener=open_stream)

    def status(self) -> dict[str, Any]:
        """Return the state of the whole mount: the object in status.json (virtfs(5), STATUS).

        >>> net.status()["virts"][0]["name"]
        'virt3'
        """
        return cast("dict[str, Any]", json.loads(self.read("status.json")))

    @property
    def last_error(self) -> str:
        """The last refused command of this user, and the reason; "ok" if none was refused.

        An exception already has this text as `strerror`. The next refused command of any program of this user
        replaces it.

        >>> net.ctl("wobble")
        Traceback (most recent call last):
        OSError: [Errno 22] "wobble": unknown command "wobble": "virtfs ctl help" lists the commands: '/mnt/virt/ctl'
        >>> net.last_error
        '"wobble": unknown command "wobble": "virtfs ctl help" lists the commands'
        """
        return self.read("last_error")

    stats = Value(
        "stats",
        _counters,
        "The counters of every interface, by name, in one read.\n\n>>> net.stats['virt3']['tx_frames'] >= 0\nTrue",
    )
    script = Value("ctl", str, "The lines that recreate the whole mount.\n\n>>> 'create 3 link' in net.script\nTrue")
    ifconfig = Value(
        "ifconfig", str, "Every interface in ifconfig's layout.\n\n>>> net.ifconfig.split(':')[0]\n'virt3'"
    )
    metrics = Value(
        "metrics",
        str,
        "Every counter, in the text format of Prometheus.\n\n>>> 'virtfs_rx_frames_total' in net.metrics\nTrue",
    )
    memory = Value("memory", str, "The memory that each user makes the server hold.\n\n>>> 'BYTES' in net.memory\nTrue")
    topology = Value("topology", str, "The network as Graphviz dot.\n\n>>> 'graph' in net.topology\nTrue")
    help = Value("help", str, "The commands and verbs of ctl.\n\n>>> 'create' in net.help\nTrue")
    version = Value("version", str, "The version of the server.\n\n>>> net.version.split()[0]\n'virtfs'")


def _end(end: End) -> str:
    """Return the word that stands for an end of a cable in a line of ctl."""
    return f"virt{end}" if isinstance(end, int) else one_line("cable", end)


def _several(interfaces: lines.Interfaces) -> list[lines.Interface]:
    """Return the interfaces as a list."""
    if interfaces is None:
        return []
    return [interfaces] if isinstance(interfaces, str | Named) else [*interfaces]


def _first_number(interfaces: list[lines.Interface]) -> int:
    """Return the number of the first interface. ValueError: none is given, or the first is not one of a mount."""
    for first in interfaces[:1]:
        name = first.name if isinstance(first, Named) else first
        if name.startswith("virt") and name[4:].isdecimal():
            return int(name[4:])
    raise ValueError("a bridge without a name needs an interface in `add`, whose number it gets")
