"""The exact layout of ifconfig, so that scripts for NetBSD's output can parse it."""

from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from virtfs.core.ids import Unit
from virtfs.core.ifconfig import ifconfig
from virtfs.core.virt import HostEnd, Virt


@pytest.fixture
def virt() -> Virt:
    host = HostEnd(
        name="tap3",
        index=7,
        up=False,
        mtu=1500,
        address=bytes.fromhex("020000000003"),
        carrier=False,
        promisc=False,
        queue=256,
    )
    return Virt(Unit(3), bytes.fromhex("b20a7f0b0e03"), host)


def shown(virts: list[Virt]) -> str:
    return "".join(ifconfig(virts))


def test_no_interface_is_no_text() -> None:
    assert shown([]) == ""


def test_a_new_one(virt: Virt) -> None:
    assert shown([virt]) == (
        "virt3: flags=0x8802<BROADCAST,SIMPLEX,MULTICAST> mtu 1500\n"
        "\taddress: b2:0a:7f:0b:0e:03\n"
        "\tstatus: no carrier\n"
    )


def test_one_in_use(virt: Virt) -> None:
    virt.set(description='the "printer"')
    virt.set_host(replace(virt.host, up=True, carrier=True))
    virt.set_host(replace(virt.host, mtu=9000))
    virt.set_host(
        replace(virt.host, addresses=tuple(map(ip_interface, ["10.0.3.1/24", "2001:db8::3/64", "fe80::3/64"])))
    )
    assert shown([virt]) == (
        "virt3: flags=0x8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 9000\n"
        '\tdescription: "the "printer""\n'
        "\taddress: b2:0a:7f:0b:0e:03\n"
        "\tstatus: active\n"
        "\tinet 10.0.3.1/24 broadcast 10.0.3.255 flags 0\n"
        "\tinet6 2001:db8::3/64 flags 0\n"
        "\tinet6 fe80::3%virt3/64 flags 0 scopeid 0x7\n"
    )


@pytest.mark.parametrize(
    ("up", "flags"),
    [
        (True, "0x8943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST>"),
        (False, "0x8902<BROADCAST,PROMISC,SIMPLEX,MULTICAST>"),
    ],
)
@pytest.mark.parametrize("why", [{"promisc": True}, {"bridge": "bridge0"}])
def test_promiscuous(virt: Virt, why: dict[str, Any], up: bool, flags: str) -> None:
    virt.set_host(replace(virt.host, up=up, **why))
    assert shown([virt]).startswith(f"virt3: flags={flags} mtu 1500\n")


@pytest.mark.parametrize("text", ["10.0.3.1/31", "10.0.3.1/32"])
def test_no_broadcast_address_where_there_is_no_room_for_one(virt: Virt, text: str) -> None:
    virt.set_host(replace(virt.host, addresses=(ip_interface(text),)))
    assert f"\tinet {text} flags 0\n" in shown([virt])


def test_the_order_is_the_callers(virt: Virt) -> None:
    other = Virt(Unit(10), virt.address, virt.host)
    names = [line.partition(":")[0] for line in shown([virt, other]).splitlines() if not line.startswith("\t")]
    assert names == ["virt3", "virt10"]


def test_a_lost_one_has_no_addresses(virt: Virt) -> None:
    virt.set_host(replace(virt.host, addresses=(ip_interface("10.0.3.1/24"),)))
    virt.set_host(replace(virt.host, promisc=True))
    virt.lose()
    assert "inet" not in shown([virt])
    assert "flags=0x8802<" in shown([virt])
