"""Lab: hosts, each with a network namespace of its own, and cables between them."""

import errno
import os
import socket as sockets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Unpack

from virtfs.client.bridge import Bridge
from virtfs.client.cable import Cable
from virtfs.client.lines import HostVerbs, Impairment, VirtVerbs
from virtfs.client.mount import Mount
from virtfs.client.virt import Host as Tap
from virtfs.client.virt import Virt
from virtfs.testing.netns import Netns

_PATIENCE: Final = 30.0  # maximum number of seconds to wait for a carrier
_PLACES: Final = {"host.virt": Virt, "host.virt.host": Tap}  # the ends of the wire of a host, by where they are


@dataclass(frozen=True, repr=False)
class _Fields:
    name: str
    netns: Netns
    virt: Virt
    addresses: tuple[str, ...]


class Host(_Fields):
    """A host: the network stack of a namespace, whose only wire leads to an interface of the mount.

    name: also the description of the interface. netns: the namespace that contains the tap. virt: the interface at the
    other end of the wire. addresses: the addresses of the tap, with prefix lengths.
    """

    if not TYPE_CHECKING:  # a type checker would take a class with __getattr__ for one with every attribute

        def __getattr__(self, name):
            """Raise the error for an attribute that a host does not have. It says where the interface has it."""
            raise AttributeError(f"a host has no {name}{_where(name)}", name=name, obj=self)

        def __setattr__(self, name, value):
            where = _where(name)
            raise AttributeError(f"a host has no {name}{where}" if where else f"{name} of a host cannot be set")

    @property
    def address(self) -> str:
        """The first address, without its prefix length. ValueError: the host has no address.

        >>> a.address
        '10.0.0.1'
        """
        if not self.addresses:
            raise ValueError(f"the host {self.name!r} has no address: give one to lab.host()")
        return self.addresses[0].partition("/")[0]

    @property
    def interface(self) -> str:
        """The name of the tap in the namespace.

        >>> ",UP," in a.run("ip", "link", "show", a.interface).stdout
        True
        """
        return self.virt.host.name

    def run(
        self, *words: "str | os.PathLike[str]", check: bool = True, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the host, and return its result. Arguments and errors: those of Netns.run().

        >>> a.run("ping", "-c1", b.address).returncode
        0
        """
        return self.netns.run(*words, check=check, **options)

    def start(
        self, *words: "str | os.PathLike[str]", listening: int | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Start a program on the host. It is killed at the end of the test. Arguments, errors: those of Netns.start().

        >>> b.start("sleep", "60").poll() is None
        True
        """
        return self.netns.start(*words, listening=listening, **options)

    def socket(self, family: int = sockets.AF_INET, kind: int = sockets.SOCK_STREAM, proto: int = 0) -> sockets.socket:
        """Return a new socket of this process on the host, which is closed after the test. Errors: Netns.socket().

        >>> with a.socket(kind=socket.SOCK_DGRAM) as client:
        ...     client.sendto(b"hello", (b.address, 9))
        5
        """
        return self.netns.socket(family, kind, proto)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Host {self.name} {' '.join(self.addresses)}>"


class Lab:
    """Hosts and cables for one test.

    >>> a = lab.host("a", "10.0.0.1/24")
    >>> b = lab.host("b", "10.0.0.2/24")
    >>> lab.cable(a, b, delay="20ms", loss="1%", seed=7).impair
    'delay 20ms loss 1% seed 7'
    """

    def __init__(self, net: Mount, make_netns: Callable[[], Netns]) -> None:
        """net: the mount for the interfaces. make_netns: makes a namespace, which Lab does not close."""
        self.net = net
        self._make_netns = make_netns
        self._hosts: dict[str, Host] = {}
        self._ports: list[Virt] = []
        self._bridges: list[Bridge] = []

    def host(self, name: str, *addresses: str, **verbs: Unpack[HostVerbs]) -> Host:
        """Make a host with these addresses, each with its prefix length, and wait until they can be used.

        addresses: the keyword arguments inet and inet6 give more. The interface has a carrier then. Its IPv6 addresses
        need no duplicate address detection, or have passed it.
        verbs: further verbs for its interface, such as mtu=9000, except netns. Nothing is connected to the virt yet:
        use cable(), or open it with `host.virt.open()`.
        ValueError: there is already a host with this name. TypeError: the name or an address is not a text, or netns is
        given.
        OSError: virtfs refuses an address or a verb; TimeoutError, an address cannot be used.

        >>> lab.host("c", "10.0.0.3/24", "fd00::3/64", mtu=1400).virt.host.addresses
        ['10.0.0.3/24', 'fd00::3/64']
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a host is a text such as 'a', not {name!r}")
        if name in self._hosts:
            raise ValueError(f"there is already a host {name!r}")
        if "netns" in verbs:
            example = "virt.set(netns=host.netns)"
            raise TypeError(f"netns: a host is a namespace of its own; for a second interface in it, use {example}")
        addresses = (*addresses, *_several(verbs.pop("inet", None)), *_several(verbs.pop("inet6", None)))
        for address in addresses:
            if not isinstance(address, str):
                raise TypeError(f"an address of a host is a text such as '10.0.0.1/24', not {address!r}")
        netns = self._make_netns()
        given: VirtVerbs = {
            "up": True,
            "netns": netns.pid,
            "inet": [address for address in addresses if ":" not in address],
            "inet6": [address for address in addresses if ":" in address],
            "description": name,
            **verbs,
        }
        host = self._hosts[name] = Host(name, netns, self.net.create(**given), addresses)
        netns.remember_neighbours(host.interface)
        if host.virt.up:
            host.virt.wait("carrier", timeout=_PATIENCE)
            _await_addresses(host)
        return host

    def cable(
        self, a: "Host | Virt | str", b: "Host | Virt | str", impair: str = "", **words: Unpack[Impairment]
    ) -> Cable:
        """Connect two hosts, or interfaces of the mount.

        a, b: hosts, their names, or interfaces. impair, words, errors: those of Mount.cable().
        KeyError: there is no such host. TypeError: more than two are given.

        >>> lab.cable("a", "b", delay="20ms").impair
        'delay 20ms'
        """
        if not isinstance(impair, str):
            raise TypeError(f"a cable connects two hosts: for {impair!r} too, use lab.switch()")
        return self.net.cable(self._virt(a), self._virt(b), impair, **words)

    def uncable(self, a: "Host | Virt | str", b: "Host | Virt | str | None" = None) -> None:
        """Remove the cable between two hosts or interfaces, or that of `a`, which has only one.

        OSError: ENOENT, there is none.

        >>> cable = lab.cable("a", "b")
        >>> lab.uncable("a")
        """
        self.net.uncable(self._virt(a), None if b is None else self._virt(b))

    def switch(self, *hosts: "Host | Virt | str", impair: str = "", **words: Unpack[Impairment]) -> Bridge:
        """Connect hosts through a new switch: a bridge of the kernel, and a cable from each host to a port of it.

        impair, words: the impairment of each cable, as for Mount.cable(). In it, "out" is the direction to the switch.
        The bridge is in the network namespace of the mount. It is destroyed after the test. Each port has the MTU that
        its host has now.
        hosts: as for cable(). ValueError: no host is given. KeyError: there is no such host. OSError: EBUSY, a host has
        another cable; EINVAL, the impairment is wrong. After an error nothing is left of the switch.

        >>> len(lab.switch("a", "b").members)
        2
        """
        if not hosts:
            raise ValueError("a switch needs a host")
        ends = [self._virt(host) for host in hosts]
        before = len(self._ports)
        try:
            for end in ends:
                of = end.description or end.name
                self._ports.append(self.net.create(up=True, mtu=end.mtu, history=0, description=f"port of {of}"))
                self.net.cable(end, self._ports[-1], impair, **words)
            self._bridges.append(self.net.bridge(up=True, add=self._ports[before:]))
        except BaseException:
            while len(self._ports) > before:
                destroy(self._ports.pop())
            raise
        return self._bridges[-1]

    def remove_switches(self) -> None:
        """Destroy the switches, with their ports and cables.

        >>> lab.remove_switches()
        """
        while made := self._bridges or self._ports:
            destroy(made.pop())

    def _virt(self, host: "Host | Virt | str") -> Virt:
        if isinstance(host, Virt):
            return host
        if not isinstance(host, Host | str):
            raise TypeError(f"not a host or its name: {host!r}; give several one by one, as in switch(*hosts)")
        return self[str(host)].virt

    def __getitem__(self, name: str) -> Host:
        """Return a host. KeyError: there is none with this name.

        >>> lab["a"].name
        'a'
        """
        if name not in self._hosts:
            hosts = f"the hosts are {', '.join(self._hosts)}" if self._hosts else "no host has been made yet"
            advice = f'; for an impairment, write impair="{name}"' if " " in str(name) else ""
            raise KeyError(f"there is no host {name!r}: {hosts}{advice}")
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        """Yield the hosts, in order of creation.

        >>> [host.name for host in lab][:2]
        ['a', 'b']
        """
        return iter(self._hosts.values())


def _where(name: str) -> str:
    """Return where the attribute of an interface is that a host lacks, as the end of an error message, or ""."""
    if name.startswith("_") or hasattr(Host, name) or name in Host.__dataclass_fields__:
        return ""
    return next((f": write {of}.{name}" for of, kind in _PLACES.items() if hasattr(kind, name)), "")


def _several(value: "str | Iterable[str] | None") -> list[str]:
    return [value] if isinstance(value, str) else [*(value or ())]


def destroy(thing: Virt | Bridge) -> None:
    """Destroy an interface or a bridge, unless it no longer exists. OSError: virtfs refuses."""
    try:
        thing.destroy()
    except OSError:
        if os.path.exists(thing.path):
            raise


def _await_addresses(host: Host) -> None:
    """Wait until no IPv6 address of a host is tentative. They are in a container whose /proc/sys cannot be written."""
    end = time.monotonic() + _PATIENCE
    while host.netns.tentative():
        if time.monotonic() > end:
            reason = f"an IPv6 address is still tentative after {_PATIENCE:.0f} s"
            raise TimeoutError(errno.ETIMEDOUT, reason, host.name)
        time.sleep(0.02)
