"""Warnings about a bridge that does not carry all frames: a packet filter sees them, or a port has a smaller MTU."""

import re
import sys
from collections.abc import Callable, Iterator

import pytest
from harness.places import Place
from harness.serving import Mount, Virt, Virts, frame
from harness.tools import FILTERS, need_bridge_filter
from harness.waiting import until

LONG = frame(4000)
# IPv4 with a wrong header checksum, IPv4 with a total length beyond the frame, half an IPv6 header, half an ARP packet.
WRONG = [
    bytes.fromhex(f"ffffffffffff 02000000000{number} {text}")
    for number, text in enumerate(
        [
            "0800 45000014 00000000 4001 1234 0a000001 0a000002",
            "0800 45000400 00000000 4001 62e7 0a000001 0a000002",
            "86dd 60000000 0000",
            "0806 0001",
        ]
    )
]
PLAIN = frame(60)


def say(mount: Mount, line: str) -> str:
    """Write a line with `virtfs ctl`, and return what it prints."""
    return mount.sh(f"{sys.executable} -m virtfs ctl -d . {line} 2>&1")


def arriving(near: Virt, far: Virt, *sent: bytes) -> list[bytes]:
    """Send frames at one port, and return those that arrive at another. PLAIN must be the last.

    The bridge itself also sends, IGMP and MLD queries.
    """
    source, sink = near.open(), far.open()
    for each in sent:
        source.write(each)
    source.close()
    frames = [sink.read()]
    while frames[-1] != PLAIN:
        frames.append(sink.read())
    sink.close()
    return [each for each in frames if each in sent]


@pytest.fixture
def filtered(mount: Mount) -> Iterator[Mount]:
    """The mount, in a network namespace where bridged frames pass iptables, as in any new one beside Docker."""
    need_bridge_filter()
    mount.sh(f"for file in {FILTERS}; do echo 1 >$file; done")
    yield mount
    mount.sh(f"for file in {FILTERS}; do echo 0 >$file; done")


def test_frames_that_pass_a_packet_filter(filtered: Mount, virts: Virts) -> None:
    """Wrong packets vanish, and the remedy in the warning lets them pass."""
    mount, near, far = filtered, virts(), virts()
    assert say(mount, f"create bridge0 up add {near.name}") == "", "the frames of one port go nowhere"
    told = say(mount, f"bridge0 add {far.name}")
    assert told.startswith(
        "virtfs: warning: frames between the ports of bridge0 pass the packet filter of the host (br_netfilter): its "
        'rules may drop them, packets with wrong headers vanish uncounted, and long ones are fragmented: "sysctl -w '
    )
    assert any("frames between the ports of bridge0 pass the packet filter" in line for line in mount.log)
    assert arriving(near, far, *WRONG, PLAIN) == [PLAIN]
    (remedy,) = re.findall('"(sysctl -w .*)" lets all frames pass unchanged', told)
    mount.sh(remedy)
    assert arriving(near, far, *WRONG, PLAIN) == [*WRONG, PLAIN]
    mount.ctl("destroy bridge0")
    assert say(mount, f"create bridge0 up add {near.name} add {far.name}") == "", "no filter any more"


def test_the_packet_filter_is_told_once_for_each_bridge(filtered: Mount, virts: Virts) -> None:
    names = [virts().name for _ in range(3)]
    mount = filtered
    mount.ctl("create bridge0 up\ncreate bridge1 up")
    assert say(mount, f"{names[0]} bridge bridge0") == ""
    assert "the ports of bridge0" in say(mount, f"{names[1]} bridge bridge0")
    assert say(mount, f"bridge0 add {names[2]}") == ""
    mount.ctl(f"bridge0 delete {names[0]} delete {names[1]}")
    assert "the ports of bridge1" in say(mount, f"bridge1 add {names[0]} add {names[1]}")


def dropped(*virts: Virt) -> list[int]:
    return [virt.count(name) for virt in virts for name in ("tx_dropped", "tx_oversize", "rx_dropped")]


def test_a_port_with_a_smaller_mtu(mount: Mount, virts: Virts) -> None:
    one, two = virts(), virts()
    mount.ctl("create bridge0")
    mount.ip("link set bridge0 addrgenmode none type bridge mcast_snooping 0")  # the bridge itself sends no frame
    assert say(mount, f"bridge0 up add {one.name} add {two.name}") == ""
    told = say(mount, f"{two.name} mtu 9000")
    assert told == (
        f"virtfs: warning: {two.name} has mtu 9000, {one.name} in the same bridge 1500: bridge0 drops longer frames to "
        f'{one.name}, and no counter shows them: give all ports the same mtu, as in "{one.name} mtu 9000"\n'
    )
    before = dropped(one, two)
    assert arriving(two, one, LONG, PLAIN) == [PLAIN]
    assert dropped(one, two) == before
    (remedy,) = re.findall(r'as in "(.*)"', told)
    assert say(mount, remedy) == ""
    assert arriving(two, one, LONG, PLAIN) == [LONG, PLAIN]
    two.write("mtu", "9001\n")
    assert f"{two.name} has mtu 9001, {one.name} in the same bridge 9000" in mount.read("last_error")
    mount.ctl(f"bridge0 delete {one.name}")
    assert say(mount, f"{one.name} mtu 1400") == "", "outside of the bridge, it may differ"
    assert f'"{one.name} mtu 9001"' in say(mount, f"{one.name} bridge bridge0")
    assert say(mount, f"{one.name} backlog 4") == "", "a line about something else does not repeat it"


def test_the_mtu_of_the_hosts_interfaces_and_of_the_bridge(mount: Mount, virts: Virts) -> None:
    virt = virts("up mtu 9000")
    mount.ip("link add uplink mtu 1450 type veth peer name far")
    told = say(mount, f"create bridge0 up add {virt.name} add uplink")
    assert f'{virt.name} has mtu 9000, "uplink" in the same bridge 1450' in told
    assert f'as in "{virt.name} mtu 1450"' in told, "the host's interface may not be able to do more"
    assert say(mount, f"{virt.name} mtu 1450") == ""
    assert "bridge0 has mtu 1500, its port " in say(mount, "bridge0 mtu 1500"), "the host sends such frames"
    mount.ctl("bridge0 mtu 1450")
    mount.ip("link set uplink mtu 2000")
    until(lambda: "uplink" in say(mount, "bridge0 mtu 1450"), "the change by another program shows")
    assert f'as in "{virt.name} mtu 2000"' in mount.read("last_error")
    mount.ctl(f"bridge0 delete {virt.name}")
    mount.ip("link add second mtu 1600 type veth peer name far2")
    assert 'as in "ip link set second mtu 2000"' in say(mount, "bridge0 add second")


@pytest.fixture
def other_bridge(mount: Mount) -> Iterator[str]:
    """A bridge of the host that no line of ctl has named, so virtfs has no files of it."""
    mount.ip("link add br0 type bridge mcast_snooping 0")
    mount.ip("link set br0 up addrgenmode none")  # the bridge itself sends no frame
    yield "br0"
    mount.ip("link delete br0")


def test_the_packet_filter_of_another_bridge(filtered: Mount, virts: Virts, other_bridge: str) -> None:
    mount, near, far, third = filtered, virts(), virts(), virts()
    assert say(mount, f"{near.name} bridge {other_bridge}") == "", "the frames of one port go nowhere"
    told = say(mount, f"{far.name} bridge {other_bridge}")
    assert told.startswith('virtfs: warning: frames between the ports of "br0" pass the packet filter of the host (br_')
    assert say(mount, f"{third.name} bridge {other_bridge}") == "", "once for each bridge"
    assert arriving(near, far, *WRONG, PLAIN) == [PLAIN]
    (remedy,) = re.findall('"(sysctl -w .*)" lets all frames pass unchanged', told)
    mount.sh(remedy)
    assert arriving(near, far, *WRONG, PLAIN) == [*WRONG, PLAIN]


def test_the_packet_filter_counts_ports_of_other_programs(filtered: Mount, virts: Virts, other_bridge: str) -> None:
    filtered.ip(f"link add uplink master {other_bridge} type veth peer name far")
    assert 'the ports of "br0"' in say(filtered, f"{virts().name} bridge {other_bridge}")
    filtered.ip("link delete uplink")


def test_the_mtu_of_the_ports_of_another_bridge(mount: Mount, virts: Virts, other_bridge: str) -> None:
    one, two = virts(f"up bridge {other_bridge}"), virts(f"up bridge {other_bridge}")
    told = say(mount, f"{two.name} mtu 9000")
    assert told == (
        f'virtfs: warning: {two.name} has mtu 9000, {one.name} in the same bridge 1500: "br0" drops longer frames to '
        f'{one.name}, and no counter shows them: give all ports the same mtu, as in "{one.name} mtu 9000"\n'
    )
    assert arriving(two, one, LONG, PLAIN) == [PLAIN]
    assert say(mount, f"{one.name} mtu 9000") == ""
    assert arriving(two, one, LONG, PLAIN) == [LONG, PLAIN]
    mount.ip(f"link add uplink mtu 1450 master {other_bridge} type veth peer name far")
    three = virts("up mtu 9000")
    told = say(mount, f"{three.name} bridge {other_bridge}")
    assert '"uplink" in the same bridge 1450: "br0" drops longer frames to "uplink"' in told
    mount.ip("link delete uplink")


def test_the_mtu_in_a_bridge_of_another_namespace(mount: Mount, virts: Virts, places: Callable[[], Place]) -> None:
    place, one, two = places(), virts(), virts("mtu 9000")
    place.ip("link add br0 up type bridge")
    place.ip("link add uplink mtu 1450 master br0 type veth peer name far")
    mount.ctl(f"{one.name} netns {place.pid}\n{one.name} mtu 1450 bridge br0\n{two.name} netns {place.pid}")
    told = say(mount, f"{two.name} bridge br0")
    assert f'{two.name} has mtu 9000, {one.name} in the same bridge 1450: "br0" drops longer frames' in told


def test_the_packet_filter_of_another_namespace(mount: Mount, virts: Virts, places: Callable[[], Place]) -> None:
    need_bridge_filter()
    place, one, two = places(), virts(), virts()
    place.sh(f"for file in {FILTERS}; do echo 1 >$file; done")
    place.ip("link add br0 up type bridge")
    mount.ctl(f"{one.name} netns {place.pid}\n{one.name} bridge br0\n{two.name} netns {place.pid}")
    told = say(mount, f"{two.name} bridge br0")
    assert f'of "br0" pass the packet filter of network namespace "{place.pid}" (br_netfilter)' in told
    (remedy,) = re.findall('"(sysctl -w .*)" there lets all frames pass unchanged', told)
    place.sh(remedy)
    place.ip("link add br1 up type bridge")
    mount.ctl(f"{one.name} bridge br1")
    assert say(mount, f"{two.name} bridge br1") == ""


def test_each_warning_of_a_line_is_told(filtered: Mount, virts: Virts) -> None:
    """The packet filter does not hide the MTU, nor do the addresses of a port hide the two."""
    mount, one, two = filtered, virts("inet 10.0.79.1/24"), virts("mtu 9000")
    told = say(mount, f"create bridge0 up add {one.name} add {two.name}").splitlines()
    assert [line.split()[:4] for line in told] == [
        ["virtfs:", "warning:", f'"{one.tap}"', "has"],
        ["virtfs:", "warning:", "frames", "between"],
        ["virtfs:", "warning:", two.name, "has"],
    ]
    assert mount.read("last_error") == "; ".join(line.removeprefix("virtfs: ") for line in told)
    assert any("frames between the ports of bridge0 pass the packet filter" in line for line in mount.log)
