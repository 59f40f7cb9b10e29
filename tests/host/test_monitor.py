"""The monitor reports changes made by `ip`: here, in watched namespaces, and when namespaces are removed."""

import errno
import os
import select
from collections.abc import Callable, Iterator
from ipaddress import ip_interface

import pytest
from harness.nets import Namespace, descriptors, ip, wait_gone
from harness.waiting import PATIENCE

from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host import monitor as monitor_module
from virtfs.host import netns
from virtfs.host.monitor import (
    AddressChanged,
    Event,
    LinkChanged,
    LinkGone,
    Monitor,
    NamespaceGone,
    Overflow,
)
from virtfs.host.tap import Tap


@pytest.fixture
def tap(monitor: Monitor) -> Iterator[Tap]:
    with Tap.open(Unit(3)) as tap:
        ip("link set tap3 addrgenmode none")
        yield tap


def _hear(monitor: Monitor, wanted: Callable[[Event], bool]) -> Event:
    """Wait for the next event for which wanted() is true, and return it. Later events stay unread."""
    poll = select.poll()
    poll.register(monitor.fileno(), select.POLLIN)
    heard: list[Event] = []
    while poll.poll(1000 * PATIENCE):
        for event in monitor.drain(limit=1):
            heard.append(event)
            if wanted(event):
                return event
    pytest.fail(f"the awaited event is not among these: {heard}")


def _link(monitor: Monitor, nsid: int | None, wanted: Callable[[LinkChanged], bool]) -> LinkChanged:
    def fits(event: Event) -> bool:
        return isinstance(event, LinkChanged) and event.nsid == nsid and wanted(event)

    event = _hear(monitor, fits)
    assert isinstance(event, LinkChanged)
    return event


def _changes(monitor: Monitor, nsid: int | None, place: Callable[[str], str]) -> None:
    """Assert that changes of tap3 are reported with `nsid`.

    place: runs ip(8) in the namespace of tap3
    """
    place("link set tap3 up")
    index = _link(monitor, nsid, lambda event: event.link.up).link.index
    place("link set tap3 mtu 1400")
    _link(monitor, nsid, lambda event: event.link.mtu == 1400)
    place("link set tap3 address 02:00:00:00:00:07")
    _link(monitor, nsid, lambda event: event.link.address == bytes.fromhex("020000000007"))
    place("link set tap3 txqueuelen 7")
    _link(monitor, nsid, lambda event: event.link.txqlen == 7)
    for text in ("10.0.3.1/24", "2001:db8::3/64"):
        place(f"address add {text} dev tap3")
        _hear(monitor, lambda event: event == AddressChanged(nsid, index, ip_interface(text), True))  # noqa: B023
        place(f"address del {text} dev tap3")
        _hear(monitor, lambda event: event == AddressChanged(nsid, index, ip_interface(text), False))  # noqa: B023
    place("link set tap3 down")
    down = _link(monitor, nsid, lambda event: not event.link.up)
    assert (down.link.index, down.link.name) == (index, "tap3")


def test_changes_at_home(monitor: Monitor, tap: Tap) -> None:
    _changes(monitor, None, ip)


def test_changes_elsewhere(monitor: Monitor, tap: Tap, elsewhere: Namespace) -> None:
    ip(f"link set tap3 netns {elsewhere.path}")
    nsid = monitor.watch(elsewhere.fd)
    _changes(monitor, nsid, elsewhere.ip)


def test_a_namespace_that_has_no_number_yet_can_be_watched(monitor: Monitor, elsewhere: Namespace) -> None:
    first = monitor.watch(elsewhere.fd)
    assert first is not None
    assert monitor.watch(elsewhere.fd) == first, "watching a namespace again returns the same nsid"
    elsewhere.ip("link add bridge0 type bridge")
    _link(monitor, first, lambda event: event.link.name == "bridge0")


def test_the_own_namespace_has_no_number(monitor: Monitor) -> None:
    own = netns.own_netns()
    assert monitor.watch(own) is None
    os.close(own)


def test_rename_and_carrier(monitor: Monitor, tap: Tap) -> None:
    ip("link set tap3 name wire")
    _link(monitor, None, lambda event: event.link.name == "wire")
    ip("link set wire up")
    _link(monitor, None, lambda event: event.link.up and event.link.carrier)
    tap.set_carrier(False)
    _link(monitor, None, lambda event: not event.link.carrier)


def test_deletion(monitor: Monitor, tap: Tap) -> None:
    ip("link del tap3")
    gone = _hear(monitor, lambda event: isinstance(event, LinkGone))
    assert isinstance(gone, LinkGone)
    assert (gone.nsid, gone.name) == (None, "tap3")
    assert not tap.alive()


def test_a_move_is_gone_from_here_but_alive(monitor: Monitor, tap: Tap, elsewhere: Namespace) -> None:
    nsid = monitor.watch(elsewhere.fd)
    ip(f"link set tap3 netns {elsewhere.path}")
    gone = _hear(monitor, lambda event: isinstance(event, LinkGone))
    assert isinstance(gone, LinkGone)
    assert (gone.nsid, gone.name) == (None, "tap3")
    _link(monitor, nsid, lambda event: event.link.name == "tap3")
    assert tap.alive()


def test_a_bridge_lets_go_of_a_port_that_stays(monitor: Monitor, tap: Tap) -> None:
    """The kernel reports a port leaving its bridge as RTM_DELLINK of family AF_BRIDGE."""
    ip("link add bridge0 type bridge")
    ip("link set tap3 master bridge0")
    _link(monitor, None, lambda event: event.link.name == "tap3" and event.link.master is not None)
    ip("link set tap3 nomaster")
    ip("link set tap3 mtu 1300")
    events: list[Event] = []

    def last(event: Event) -> bool:
        events.append(event)
        return isinstance(event, LinkChanged) and event.link.mtu == 1300

    _hear(monitor, last)
    assert not [event for event in events if isinstance(event, LinkGone)]


def test_a_namespace_dies_though_it_is_watched(monitor: Monitor, tap: Tap, elsewhere: Namespace) -> None:
    ip(f"link set tap3 netns {elsewhere.path}")
    nsid = monitor.watch(elsewhere.fd)
    assert nsid is not None
    elsewhere.close()
    _hear(monitor, lambda event: event == NamespaceGone(nsid))
    wait_gone(tap.fd)


def test_nothing_there_is_an_empty_list_at_once(monitor: Monitor) -> None:
    while monitor.drain():
        pass
    assert monitor.drain() == []


def test_a_storm_is_taken_in_portions(monitor: Monitor, tap: Tap) -> None:
    for _ in range(20):
        tap.set_carrier(False)
        tap.set_carrier(True)
        ip("link set tap3 promisc on")
        ip("link set tap3 promisc off")
    assert 0 < len(monitor.drain(limit=3)) <= 3
    assert monitor.drain(limit=3), "the other events are still unread"


def test_overflow_is_told_and_hearing_goes_on(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "_BUFFER", 1)  # the kernel raises it to its minimum
    with Monitor() as monitor, Tap.open(Unit(3)):
        for number in range(10):
            ip(f"link set tap3 mtu {1000 + number}")
        _hear(monitor, lambda event: event == Overflow())
        ip("link set tap3 mtu 1400")
        _link(monitor, None, lambda event: event.link.mtu == 1400)


def test_a_descriptor_that_is_no_namespace(monitor: Monitor) -> None:
    with open("/dev/null") as other, pytest.raises(VirtError) as caught:
        monitor.watch(other.fileno())
    assert caught.value.errno == errno.EINVAL


def test_closing_leaves_nothing(elsewhere: Namespace) -> None:
    before = descriptors()
    for _ in range(20):
        with Monitor() as monitor:
            monitor.watch(elsewhere.fd)
            assert not os.get_inheritable(monitor.fileno())
        assert monitor.fileno() == -1
    assert descriptors() == before
