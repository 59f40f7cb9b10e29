"""status.json has everything that the files have, each value with its JSON type."""

import json
from dataclasses import fields
from ipaddress import ip_interface
from typing import Any

import pytest

from virtfs.core.bridge import Bridge, BridgeState, FdbEntry, Member
from virtfs.core.ids import BridgeName, Gid, Uid, Unit
from virtfs.core.status import describe, describe_bridge, status_pieces
from virtfs.core.values import TAP_VALUES, VALUES, counter
from virtfs.core.virt import COUNTERS, HostEnd, State, Virt

Shown = dict[str, Any]


@pytest.fixture
def virt() -> Virt:
    host = HostEnd(
        name="tap3",
        index=7,
        up=True,
        mtu=1500,
        address=bytes.fromhex("020000000003"),
        carrier=True,
        promisc=False,
        queue=256,
        dropped=2,
        addresses=tuple(map(ip_interface, ["10.0.3.1/24", "fe80::3/64"])),
    )
    virt = Virt(Unit(3), bytes.fromhex("b20a7f0b0e03"), host, Uid(1000), Gid(5))
    virt.counters.rx_frames, virt.counters.rx_dropped = 5, 1
    return virt


def text_of(*arguments: Any, **keys: Any) -> str:
    return "".join(status_pieces(*arguments, **keys))


def shown(virt: Virt) -> Shown:
    one = describe(virt, 1, lambda uid: {1000: "alice"}.get(uid, str(uid)), str)
    read: Shown = json.loads(text_of("1.2", [one]))["virts"][0]
    return read


def test_an_interface(virt: Virt) -> None:
    one = shown(virt)
    expected = {
        "name": "virt3",
        "unit": 3,
        "lost": False,
        "owner": 1000,
        "owner_name": "alice",
        "group": 5,
        "group_name": None,
        "mode": "0600",
        "address": "b2:0a:7f:0b:0e:03",
        "mtu": 1500,
        "up": True,
        "strict": False,
        "exclusive": "read",
        "description": "",
        "readers": 1,
    }
    assert {key: one[key] for key in expected} == expected
    assert one["stats"] == {**dict.fromkeys(COUNTERS, 0), "rx_frames": 5, "rx_dropped": 3}
    tap = {"name": "tap3", "index": 7, "address": "02:00:00:00:00:03", "up": True, "carrier": True, "mtu": 1500}
    assert {key: one["tap"][key] for key in tap} == tap
    assert one["tap"]["addresses"] == ["10.0.3.1/24", "fe80::3/64"]


def as_text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def test_each_file_is_there_in_its_kind(virt: Virt) -> None:
    """The values are those of the files, and numbers are not strings."""
    one = shown(virt)
    told = {name: (one[name], value(virt)) for name, value in VALUES.items()}
    told |= {
        f"tap/{name}": (one["tap"][name], value(virt)) for name, value in TAP_VALUES.items() if name != "addresses"
    }
    told |= {f"stats/{name}": (one["stats"][name], str(counter(virt, name))) for name in COUNTERS}
    for file, (value, text) in told.items():
        assert as_text(value) == text, file
        assert not (isinstance(value, str) and text.isdecimal()), f"{file} holds a number: declare it in core.status"


def test_one_line_of_its_own(virt: Virt) -> None:
    virt.set(description='a "quoted" \\ back – slash')
    text = text_of("1.2", [describe(virt, 0, str, str)], [{"name": "bridge0"}])
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    read = json.loads(text)
    assert list(read) == ["version", "options", "netns", "virts", "bridges", "cables", "state", "limits", "memory"]
    assert read["version"] == "1.2"
    assert read["virts"][0]["description"] == virt.description
    assert read["bridges"] == [{"name": "bridge0"}]


def test_a_bridge() -> None:
    known = FdbEntry(bytes.fromhex("020000000009"), "tap3", 7)
    state = BridgeState(
        up=True,
        address=bytes.fromhex("020000000001"),
        members=(Member("tap3", 1, learn=False),),
        known=(known,),
        addresses=(ip_interface("10.0.0.1/8"),),
    )
    told = json.loads(text_of("1.2", [], [describe_bridge(Bridge(BridgeName("bridge0"), state))]))["bridges"][0]
    assert (told["name"], told["lost"], told["up"], told["maxaddr"]) == ("bridge0", False, True, 100)
    assert (told["address"], told["inet"]) == ("02:00:00:00:00:01", ["10.0.0.1/8"])
    assert told["members"][0]["learn"] is False
    assert told["addresses"] == [{"address": "02:00:00:00:00:09", "member": "tap3", "age": 7, "static": False}]
    assert {f.name for f in fields(BridgeState)} - {"known", "addresses"} <= set(told), "every attribute is reported"
    lost_bridge = describe_bridge(Bridge(BridgeName("bridge0"), state, lost=True))
    lost = json.loads(text_of("1.2", [], [lost_bridge]))["bridges"][0]
    assert {key for key in told if lost[key] != told[key]} == {"lost", "up", "members", "addresses"}
    assert (lost["lost"], lost["up"], lost["members"], lost["addresses"]) == (True, False, [], [])


def test_keys_keep_their_order(virt: Virt) -> None:
    other = Virt(Unit(4), virt.address, virt.host, state=State.LOST, description="x")
    assert json.dumps(list(shown(virt))) == json.dumps(list(shown(other)))
    assert list(json.loads(text_of("1.2", []))) == [
        "version",
        "options",
        "netns",
        "virts",
        "bridges",
        "cables",
        "state",
        "limits",
        "memory",
    ]
