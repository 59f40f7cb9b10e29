"""Changes made by Links, as `ip` shows them, in each namespace that the tap may be in."""

import errno
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest
from harness.nets import Namespace, descriptors, ip, wait_gone

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host import links as links_module
from virtfs.host.links import Links
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap import Tap

from .contract import read

MAC = bytes.fromhex("020000000003")


@pytest.fixture
def tap(network: None) -> Iterator[Tap]:
    with Tap.open(Unit(3)) as tap:
        yield tap


class Place:
    """The namespace and the name of the tap."""

    def __init__(self, name: str, namespace: Namespace | None) -> None:
        self.name = name
        self._namespace = namespace

    def ip(self, words: str) -> str:
        return self._namespace.ip(words) if self._namespace else ip(words)

    def shown(self) -> Any:
        return json.loads(self.ip(f"-json -details address show dev {self.name}"))[0]


@pytest.fixture(params=["at home", "renamed", "moved"])
def place(request: pytest.FixtureRequest, tap: Tap, elsewhere: Namespace) -> Place:
    if request.param == "at home":
        return Place("tap3", None)
    if request.param == "renamed":
        ip("link set tap3 name wire")
        return Place("wire", None)
    ip(f"link set tap3 netns {elsewhere.path}")
    return Place("tap3", elsewhere)


def test_what_is_set_is_shown_and_read_back(links: Links, tap: Tap, place: Place) -> None:
    assert not links.get(tap).up
    links.set(tap, up=True, mtu=9000, address=MAC, txqlen=17)
    shown = place.shown()
    assert "UP" in shown["flags"]
    assert (shown["mtu"], shown["address"], shown["txqlen"]) == (9000, "02:00:00:00:00:03", 17)
    link = links.get(tap)
    assert (link.index, link.name) == (shown["ifindex"], place.name)
    assert (link.up, link.mtu, link.address, link.txqlen) == (True, 9000, MAC, 17)
    assert (link.carrier, link.master, link.promisc) == (True, None, False)
    links.set(tap, up=False)
    assert "UP" not in place.shown()["flags"]
    assert not links.get(tap).up


def test_what_others_set_is_read(links: Links, tap: Tap, place: Place) -> None:
    place.ip(f"link set {place.name} up mtu 1400 promisc on txqueuelen 9")
    place.ip("link add bridge0 type bridge")
    place.ip(f"link set {place.name} master bridge0")
    link = links.get(tap)
    assert (link.up, link.mtu, link.promisc, link.txqlen) == (True, 1400, True, 9)
    assert link.master == json.loads(place.ip("-json link show bridge0"))[0]["ifindex"]
    tap.set_carrier(False)
    assert not links.get(tap).carrier


def test_addresses(links: Links, tap: Tap, place: Place) -> None:
    links.quiet(tap)
    v4, v6 = ip_interface("10.0.3.1/24"), ip_interface("2001:db8::3/64")
    assert links.addresses(tap) == ()
    links.add_address(tap, v4)
    links.add_address(tap, v6)
    assert links.addresses(tap) == (v4, v6)
    shown = {one["local"]: one for one in place.shown()["addr_info"]}
    assert shown["10.0.3.1"]["broadcast"] == "10.0.3.255"
    assert shown["10.0.3.1"]["prefixlen"] == 24
    assert shown["2001:db8::3"]["prefixlen"] == 64
    links.remove_address(tap, v4)
    links.remove_address(tap, ip_address("2001:db8::3"))
    assert links.addresses(tap) == ()
    assert place.shown()["addr_info"] == []


@pytest.mark.parametrize("text", ["10.0.3.1/24", "10.0.3.1/31", "10.0.3.1/32", "127.0.3.1/8", "192.0.2.0/30"])
def test_an_address_is_added_as_ip_does(links: Links, tap: Tap, text: str) -> None:
    def shown() -> Any:
        return json.loads(ip("-json address show dev tap3"))[0]["addr_info"]

    ip(f"address add {text} brd + dev tap3")
    theirs = shown()
    ip(f"address del {text} dev tap3")
    links.add_address(tap, ip_interface(text))
    assert shown() == theirs


def test_addresses_that_others_made_are_all_shown(links: Links, tap: Tap) -> None:
    ip("link set tap3 address 02:00:00:00:00:03 up")
    ip("address add 10.9.0.1 peer 10.9.0.2/32 dev tap3")
    assert set(links.addresses(tap)) == {ip_interface("10.9.0.1/32"), ip_interface("fe80::ff:fe00:3/64")}


def test_other_interfaces_addresses_are_not_ours(links: Links, tap: Tap) -> None:
    ip("link add other type bridge")
    ip("address add 10.1.1.1/24 dev other")
    assert links.addresses(tap) == ()


def test_the_prefix_of_a_removal_counts(links: Links, tap: Tap) -> None:
    links.add_address(tap, ip_interface("10.0.3.1/24"))
    assert _refused(lambda: links.remove_address(tap, ip_interface("10.0.3.1/16"))).errno == errno.EADDRNOTAVAIL
    links.remove_address(tap, ip_interface("10.0.3.1/24"))
    assert links.addresses(tap) == ()


def _refused(call: Any) -> VirtError:
    with pytest.raises(VirtError) as caught:
        call()
    assert "\n" not in str(caught.value.strerror)
    return caught.value


@pytest.mark.parametrize(
    ("change", "number", "quoted"),
    [
        ({"mtu": 67}, errno.ERANGE, 'MTU "67" on tap3: mtu less than device minimum'),
        ({"mtu": 65536}, errno.ERANGE, 'MTU "65536" on tap3: mtu greater than device maximum'),
        ({"mtu": -1}, errno.ERANGE, '"-1"'),
        ({"txqlen": 1 << 32}, errno.ERANGE, '"4294967296"'),
        ({"address": bytes.fromhex("010000000003")}, errno.EADDRNOTAVAIL, '"01:00:00:00:00:03"'),
        ({"address": bytes(6)}, errno.EADDRNOTAVAIL, '"00:00:00:00:00:00"'),
        ({"address": b"\2\0\0"}, errno.EINVAL, '"02:00:00"'),
    ],
)
def test_refusals_of_values(links: Links, tap: Tap, change: Any, number: int, quoted: str) -> None:
    before = links.get(tap)
    refusal = _refused(lambda: links.set(tap, **change))
    assert refusal.errno == number
    assert quoted in str(refusal.strerror)
    assert links.get(tap) == before


@pytest.mark.parametrize("text", ["10.0.3.1/24", "2001:db8::3/64"])
def test_refusals_of_addresses(links: Links, tap: Tap, place: Place, text: str) -> None:
    address = ip_interface(text)
    missing = _refused(lambda: links.remove_address(tap, address))
    assert missing.errno == errno.EADDRNOTAVAIL
    assert f'"{text}" on {place.name}' in str(missing.strerror)
    links.add_address(tap, address)
    twice = _refused(lambda: links.add_address(tap, address))
    assert twice.errno == errno.EEXIST
    assert f'"{text}" on {place.name}' in str(twice.strerror)


def test_a_lost_tap_is_enxio(links: Links, tap: Tap) -> None:
    ip("link del tap3")
    calls: list[Any] = [
        lambda: links.get(tap),
        lambda: links.set(tap, up=True),
        lambda: links.set(tap, mtu=1400),
        lambda: links.addresses(tap),
        lambda: links.add_address(tap, ip_interface("10.0.3.1/24")),
        lambda: links.remove_address(tap, ip_interface("10.0.3.1/24")),
        lambda: links.quiet(tap),
    ]
    for call in calls:
        assert _refused(call).errno == errno.ENXIO


def test_a_tap_renamed_or_moved_in_the_middle_is_found(
    links: Links, tap: Tap, elsewhere: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Rtnl.index

    def late(rtnl: Rtnl, name: str) -> int:
        monkeypatch.setattr(Rtnl, "index", find)
        ip(f"link set tap3 netns {elsewhere.path}")
        return find(rtnl, name)

    monkeypatch.setattr(Rtnl, "index", late)
    assert links.get(tap).name == "tap3"


def test_quiet(links: Links, tap: Tap, place: Place) -> None:
    links.quiet(tap)
    assert "addrgenmode none" in place.ip(f"-details link show dev {place.name}")
    links.set(tap, up=True)
    assert links.addresses(tap) == ()
    with pytest.raises(BlockingIOError):
        read(tap)
    links.add_address(tap, ip_interface("2001:db8::3/64"))
    links.set(tap, up=False)
    assert links.addresses(tap) == (ip_interface("2001:db8::3/64"),), "kept over down"


def test_quiet_without_proc_is_logged(
    links: Links, tap: Tap, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(links_module, "write_text", read_only)
    with caplog.at_level(logging.INFO):
        links.quiet(tap)
        links.quiet(tap)
        links.begin(tap, 500)
    assert caplog.text.count("tap3 and later taps will lose their IPv6 addresses when they are set down") == 1
    assert caplog.text.count("keep_addr_on_down") == 1


def test_drops_of_the_kernels_queue_are_counted(links: Links, tap: Tap) -> None:
    links.quiet(tap)
    links.set(tap, txqlen=4, up=True)
    links.add_address(tap, ip_interface("10.0.3.1/24"))
    ip("neighbour add 10.0.3.2 lladdr 02:00:00:00:00:09 dev tap3")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(b"x", ("10.0.3.2", 9))
    assert links.get(tap).tx_dropped == 6
    with Tap.open(Unit(4)) as other:
        assert {index: links.dropped()[index] for index in map(_index, (tap, other))} == {
            _index(tap): 6,
            _index(other): 0,
        }
        assert [links.dropped_by(_index(one)) for one in (tap, other)] == [6, 0]


def _index(tap: Tap) -> int:
    return socket.if_nametoindex(tap.name())


def test_drops_of_a_tap_elsewhere_are_not_in_ours(links: Links, tap: Tap, elsewhere: Namespace) -> None:
    index = _index(tap)
    assert index in links.dropped()
    ip(f"link set tap3 netns {elsewhere.path}")
    assert index not in links.dropped()
    with pytest.raises(VirtError) as refusal:
        links.dropped_by(index)
    assert refusal.value.errno == errno.ENODEV


def test_nothing_is_left_open_and_a_namespace_may_die(elsewhere: Namespace) -> None:
    with Links() as links, Tap.open(Unit(3)) as tap:
        ip(f"link set tap3 netns {elsewhere.path}")
        before = descriptors()
        for _ in range(20):
            links.get(tap)
            links.set(tap, mtu=1400)
            links.addresses(tap)
            links.quiet(tap)
        assert descriptors() == before
        elsewhere.close()
        wait_gone(tap.fd)
        assert _refused(lambda: links.get(tap)).errno == errno.ENXIO


def test_only_these_taps_are_deleted(links: Links, elsewhere: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps in another namespace stay. So does an interface that meanwhile gets the name of a deleted tap."""
    monkeypatch.setattr(links_module, "DELETED_AT_ONCE", 3)
    with ExitStack() as closing:
        taps = [closing.enter_context(Tap.open(Unit(unit))) for unit in range(8)]
        ip(f"link set tap6 netns {elsewhere.path}")
        ip("link set tap5 name other")
        real = links._rtnl.index

        def index(name: str) -> int:
            if name == "tap3" and taps[3].alive():  # as if another program did this between two calls
                ip("link del tap3")
                ip("link add tap3 type bridge")
            return real(name)

        monkeypatch.setattr(links._rtnl, "index", index)
        links.delete(taps[:7])
        assert [tap.alive() for tap in taps] == [False] * 6 + [True, True]
        assert {name for _, name in socket.if_nameindex()} == {"lo", "tap3", "tap7"}
        links.delete(taps[:7])
        assert taps[6].alive()
