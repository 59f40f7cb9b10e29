"""Taps that other programs create, hold, rename, move or delete, and what is left when virtfs closes them."""

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.nets import Namespace, descriptors, ip, wait_gone

from virtfs.core.errors import VirtError
from virtfs.core.ids import UNIT_MAX, Unit
from virtfs.host import netns
from virtfs.host import tap as tap_module
from virtfs.host.tap import Tap
from virtfs.host.tap_protocol import OFFLOAD_ALL, OFFLOAD_NONE, OFFLOAD_UDP

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNGETVNETHDRSZ = 0x800454D7
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 2, 0x100, 0x1000, 0x4000


@contextmanager
def _another_program(name: str, flags: int = 0) -> Iterator[int]:
    """Attach to a tap as another program would. Yields the descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | flags)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        yield fd
    finally:
        os.close(fd)


def _there(name: str) -> bool:
    return any(name == there for _index, there in socket.if_nameindex())


def _refused(unit: int) -> VirtError:
    before = descriptors()
    with pytest.raises(VirtError) as caught:
        Tap.open(Unit(unit))
    assert descriptors() == before, "all descriptors are closed"
    return caught.value


def test_made_and_gone_with_the_descriptor(network: None) -> None:
    with Tap.open(Unit(3)) as tap:
        assert tap.made
        assert tap.name() == "tap3"
        assert _there("tap3")
        assert not os.get_inheritable(tap.fd)
    assert not _there("tap3")


def test_the_last_unit_has_its_whole_name(network: None) -> None:
    with Tap.open(UNIT_MAX) as tap:
        assert tap.name() == "tap2147483639"


def test_a_free_persistent_tap_is_attached_to_and_left_as_found(network: None) -> None:
    ip("tuntap add tap3 mode tap")
    ip("address add 10.0.3.1/24 dev tap3")
    with _another_program("tap3") as fd:
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", 12))
    with Tap.open(Unit(3)) as tap:
        assert not tap.made
        assert tap.alive()
    assert "10.0.3.1/24" in ip("address show dev tap3")
    with _another_program("tap3") as fd:
        size = fcntl.ioctl(fd, _TUNGETVNETHDRSZ, bytes(4))
        assert struct.unpack("i", size) == (12,)


def test_a_free_persistent_tap_of_many_queues_is_attached_to(network: None) -> None:
    ip("tuntap add tap3 mode tap multi_queue")
    with Tap.open(Unit(3)) as tap:
        assert not tap.made
        assert tap.name() == "tap3"
        assert _refused(3).errno == errno.EBUSY
    assert _there("tap3")


def test_persistence_is_set_and_taken_back(network: None) -> None:
    with Tap.open(Unit(3)) as tap:
        tap.set_persist(True)
    assert _there("tap3")
    with Tap.open(Unit(3)) as tap:
        assert not tap.made
        tap.set_persist(False)
    assert not _there("tap3")


@pytest.mark.parametrize("flags", [0, _IFF_MULTI_QUEUE], ids=["one queue", "many queues"])
def test_held_by_another_program(network: None, flags: int) -> None:
    with _another_program("tap3", flags):
        refusal = _refused(3)
    assert refusal.errno == errno.EBUSY
    assert refusal.strerror == '"tap3" is held by another program'


@pytest.mark.parametrize("make", ["link add tap3 type bridge", "tuntap add tap3 mode tun"])
def test_the_name_belongs_to_something_else(network: None, make: str) -> None:
    ip(make)
    refusal = _refused(3)
    assert refusal.errno == errno.EBUSY
    assert refusal.strerror == '"tap3" exists but is not a tap'
    assert _there("tap3")


def test_no_device_says_what_to_do(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_module, "_DEVICE", "/nonexistent/tun")
    refusal = _refused(3)
    assert refusal.errno == errno.ENODEV
    assert "modprobe tun" in str(refusal.strerror)


def test_without_the_capability_says_which(network: None) -> None:
    program = "from virtfs.host.tap import Tap; from virtfs.core.ids import Unit; Tap.open(Unit(3))"
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "[Errno 1]" in done.stderr
    assert "CAP_NET_ADMIN" in done.stderr


def test_a_rename_is_followed(network: None) -> None:
    with Tap.open(Unit(3)) as tap:
        ip("link set tap3 name wire")
        assert tap.name() == "wire"
        assert tap.alive()


def test_a_move_is_followed(elsewhere: Namespace) -> None:
    with Tap.open(Unit(3)) as tap:
        ip(f"link set tap3 netns {elsewhere.path}")
        elsewhere.ip("link set tap3 name wire")
        assert tap.name() == "wire"
        assert tap.alive()
        fd = tap.netns()
        assert netns.same_netns(fd, elsewhere.fd)
        os.close(fd)


def test_deleted_from_outside(network: None) -> None:
    with Tap.open(Unit(3)) as tap:
        assert tap.alive()
        ip("link del tap3")
        assert not tap.alive()
        with Tap.open(Unit(3)) as again:
            assert again.made, "the unit can be created again while the lost tap is still open"


def test_a_dying_namespace_takes_the_tap_along_and_is_not_held(elsewhere: Namespace) -> None:
    with Tap.open(Unit(3)) as tap:
        ip(f"link set tap3 netns {elsewhere.path}")
        assert tap.alive()
        elsewhere.close()
        wait_gone(tap.fd)
        assert not tap.alive()
        with pytest.raises(VirtError) as caught:
            tap.netns()
        assert caught.value.errno == errno.ENXIO


def test_a_named_namespace_dies_with_ip_netns_del(network: None) -> None:
    name = f"virtfs-test-{os.getpid()}"
    ip(f"netns add {name}")
    try:
        tap = Tap.open(Unit(3))
        ip(f"link set tap3 netns {name}")
        assert tap.alive()
    finally:
        ip(f"netns del {name}")
    wait_gone(tap.fd)
    tap.close()


WISHES = "tx-checksum-ip-generic tx-tcp-segmentation tx-tcp-ecn-segmentation tx-tcp6-segmentation tx-udp-segmentation"


def ethtool(*words: str) -> str:
    """Run ethtool(8) in the calling thread's network namespace, and return its output.

    Its exit status is ignored, because it fails if the driver allows none of the requested features.
    """
    return subprocess.run(["ethtool", *words], capture_output=True, text=True, check=False).stdout


def features(name: str) -> dict[str, tuple[bool, bool]]:
    """Return which features are active and which are requested, according to ethtool(8).

    The features are those that a tap's reader can control.
    """
    shown = json.loads(ethtool("--json", "-k", name))[0]
    return {feature: (shown[feature]["active"], shown[feature]["requested"]) for feature in WISHES.split()}


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize(
    ("words", "turned_off"),
    [
        ("", ""),
        ("tx-tcp-segmentation off", "tx-tcp-segmentation"),
        ("tx-tcp6-segmentation off", "tx-tcp6-segmentation"),
        ("tso off", "tx-tcp-segmentation tx-tcp-ecn-segmentation tx-tcp6-segmentation"),
        ("tx off tso off", "tx-checksum-ip-generic tx-tcp-segmentation tx-tcp-ecn-segmentation tx-tcp6-segmentation"),
        ("tx-udp-segmentation off", "tx-udp-segmentation"),
    ],
)
@pytest.mark.parametrize("when", [OFFLOAD_NONE, OFFLOAD_ALL])
def test_what_ethtool_turned_off_stays_off(network: None, made: bool, words: str, turned_off: str, when: int) -> None:
    """This holds whether offload was on or off at that time, and until the tap is closed."""
    if not made:
        ip("tuntap add tap3 mode tap")
    tap = Tap.open(Unit(3))
    tap.set_offload(when)
    if words:
        ethtool("-K", "tap3", *words.split())
    wanted = {feature: feature not in turned_off.split() for feature in WISHES.split()}
    for flags in (OFFLOAD_ALL, OFFLOAD_NONE, OFFLOAD_ALL):
        tap.set_offload(flags)
        assert {feature: requested for feature, (_, requested) in features("tap3").items()} == wanted
        for feature in ("tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation"):
            assert features("tap3")[feature][0] == (flags == OFFLOAD_ALL and wanted[feature])
    if turned_off:
        ethtool("-K", "tap3", "tx", "on", "tso", "on", "tx-udp-segmentation", "on")
        assert all(features("tap3")[feature][0] for feature in ("tx-checksum-ip-generic", "tx-tcp-segmentation"))
        ethtool("-K", "tap3", *words.split())
    tap.close()
    if not made:
        assert features("tap3") == {feature: (False, wanted[feature]) for feature in WISHES.split()}
        with Tap.open(Unit(3)):
            assert features("tap3") == {feature: (False, wanted[feature]) for feature in WISHES.split()}


@pytest.mark.parametrize("old", [False, True])
def test_offload_of_datagrams_needs_linux_6_2(network: None, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """An older kernel refuses the flags for UDP; then TCP alone is offloaded."""
    ioctl = fcntl.ioctl

    def refusing(fd: int, request: int, argument: int | bytes = 0) -> int | bytes:
        if request == _TUNSETOFFLOAD and isinstance(argument, int) and argument & OFFLOAD_UDP:
            raise OSError(errno.EINVAL, "as Linux 6.1 does")
        return ioctl(fd, request, argument)

    if old:
        monkeypatch.setattr(fcntl, "ioctl", refusing)
    elif tuple(map(int, os.uname().release.split(".")[:2])) < (6, 2):
        pytest.skip("kernel lacks offload of UDP datagrams to a tap (TUN_F_USO4, Linux 6.2)")
    with Tap.open(Unit(3)) as tap:
        tap.set_offload(OFFLOAD_ALL)
        active = {feature: on for feature, (on, _) in features("tap3").items()}
        assert active["tx-tcp-segmentation"]
        assert active["tx-udp-segmentation"] == (not old)
        tap.set_offload(OFFLOAD_NONE)
        assert not any(on for on, _ in features("tap3").values())


def test_a_new_tap_s_features_are_left_alone(network: None) -> None:
    with Tap.open(Unit(3)):
        assert features("tap3") == dict.fromkeys(WISHES.split(), (False, True))


def test_offload_where_the_tap_is(elsewhere: Namespace) -> None:
    with Tap.open(Unit(3)) as tap:
        ip(f"link set tap3 netns {elsewhere.path}")
        elsewhere.call(lambda: ethtool("-K", "tap3", "tx-tcp-segmentation", "off"))
        tap.set_offload(OFFLOAD_ALL)
        shown = netns.inside(elsewhere.fd, lambda: features("tap3"))
        assert (shown["tx-tcp-segmentation"][0], shown["tx-tcp6-segmentation"][0]) == (False, True)
        tap.set_offload(OFFLOAD_NONE)


def test_carrier(network: None) -> None:
    with Tap.open(Unit(3)) as tap:
        ip("link set tap3 up")
        tap.set_carrier(False)
        assert "NO-CARRIER" in ip("link show tap3")
        tap.set_carrier(True)
        assert "NO-CARRIER" not in ip("link show tap3")


def test_many_taps_leak_no_descriptor(network: None) -> None:
    before = descriptors()
    for _ in range(200):
        Tap.open(Unit(3)).close()
    assert descriptors() == before
    assert not _there("tap3")


def test_a_device_that_may_not_be_opened(network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    refusal = _refused(3)
    assert refusal.errno == errno.EACCES
    assert "cannot open /dev/net/tun: run as root" in str(refusal.strerror)
