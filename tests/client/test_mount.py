"""Mount, Virt, Bridge, cables and events: a program and the kernel or other programs see each other's changes."""

import errno
import io
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from harness.fixtures import Alone
from harness.serving import Mount, frame
from harness.waiting import PATIENCE, until

import virtfs
from virtfs.client import lines
from virtfs.client.virt import Condition
from virtfs.core.verbs import BRIDGE

from .conftest import seen
from .examples import RECORDING
from .waiting import Waiting, fails


def test_the_values_of_an_interface(mount: Mount, v: virtfs.Virt) -> None:
    v.mtu, v.backlog, v.strict, v.pace, v.description = 1400, 5, True, 0.5, "a # b"
    v.history_size = "64K"
    assert "mtu 1400" in mount.ip("link show tap3")
    mount.ctl("virt3 queue 17")
    assert (v.mtu, v.queue, v.backlog, v.strict, v.promisc, v.pace) == (1400, 17, 5, True, False, 0.5)
    assert (v.history_size, v.description, v.carrier, v.exclusive) == (65536, "a # b", "always", "read")
    assert {type(value) for value in (v.mtu, v.history_size, v.host.index, v.next)} == {int}
    v.filter = "arp"
    v.filter = ""
    assert v.filter == ""


def test_the_attributes_are_those_of_status_json(net: virtfs.Mount, v: virtfs.Virt) -> None:
    """Their types agree, too: a new file needs an attribute that agrees with status.json."""
    v.set(pace=2, history="64K", inet="10.0.3.1/24")
    told = net.status()["virts"][0]
    for name, value in told.items():
        if name in ("unit", "lost", "owner_name", "group_name", "mode", "readers"):
            continue
        if name == "stats":
            assert dict(v.stats) == value
        elif name == "tap":
            assert {file: getattr(v.host, file) for file in value} == value
        else:
            mine = getattr(v, name)
            assert (mine, type(mine) in (type(value), float)) == (value, True), name


def test_a_refusal_has_the_errno_and_the_sentence(net: virtfs.Mount, v: virtfs.Virt) -> None:
    with fails(errno.ERANGE) as caught:
        v.mtu = 66000
    error = caught.value
    assert (error.errno, error.filename) == (errno.ERANGE, str(v.path / "mtu"))
    assert error.strerror == 'virt3/mtu: "66000" is outside the range 68 to 65521' == net.last_error
    with pytest.raises(FileExistsError, match='"virt3" already exists'):
        net.create(3)
    with pytest.raises(OSError, match=r"line 2.*wobble"):
        net.ctl("virt3 up\nvirt3 wobble\nvirt3 down")
    with pytest.raises(OSError, match="unknown verb"):
        net.create(5, mtu=1400, wobble=3)  # type: ignore[call-arg]
    assert 5 not in net
    with pytest.raises(AttributeError, match="next cannot be set"):
        v.next = 3


def test_a_refusal_by_the_kernel_has_its_own_sentence(v: virtfs.Virt) -> None:
    v.destroy()
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*virt3/mtu"):
        v.mtu  # noqa: B018
    with pytest.raises(FileNotFoundError):
        v.stats["rx_frames"]


def test_interfaces_are_a_collection(net: virtfs.Mount) -> None:
    assert (len(net), list(net), bool(net)) == (0, [], True)
    v = net.create(30)
    w = net.create(4, up=True)
    assert list(net) == [w, v]
    assert net[30] == v
    assert v != w
    assert len({v, net[30]}) == 1
    assert net["virt30"] == net["30"] == net[v] == v
    for what in (4, "4", "virt4", w, *net):
        assert what in net
    for absent in (3, "virt3", "virt04", "virt4/..", "bridge0", "", None, virtfs.Virt("/nowhere", 4)):
        assert absent not in net
    for kind in (KeyError, FileNotFoundError):
        with pytest.raises(kind, match=r"no such interface: '.*/virt3'"):
            net[3]
    net.destroy(v)
    net.destroy("virt4")
    assert len(net) == 0
    with fails(errno.ENXIO, "virt30"):
        net.destroy(30)
    v = net.create(3)
    for opening in (v.open, v.stream, v.hex):
        with pytest.raises(ValueError, match="mode 'q' is not"):
            opening("q")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyError, FileNotFoundError])
def test_names_that_do_not_exist(net: virtfs.Mount, v: virtfs.Virt, error: type[Exception]) -> None:
    """All have the same class of exception, which names those that exist."""
    cable = net.cable(3, net.create(4))
    with pytest.raises(error, match=r'no counter "wobble": the counters are .*tx_frames.*: \'.*/stats/wobble'):
        v.stats["wobble"]
    for counters in (cable.stats["out"], cable.stats["in"], net.stats["virt3"]):
        with pytest.raises(error, match=r'no counter "losst": the counters are .*bytes, '):
            counters["losst"]
    with pytest.raises(error, match='stats has "out" and "in", not \'lost\': stats\\["out"\\]\\[\'lost\'\\]'):
        cable.stats["lost"]  # type: ignore[index]
    with pytest.raises(error, match='no interface "virt5": the interfaces are virt3, virt4'):
        net.stats["virt5"]
    with pytest.raises(error, match='no bridge "bridge1": there are no bridges'):
        net.bridges["bridge1"]
    bridge = net.bridge("bridge0")
    with pytest.raises(error, match='no bridge "bridge1": the bridges are bridge0'):
        net.bridges["bridge1"]
    bridge.destroy()


def test_the_lowest_free_number(mount: Mount, net: virtfs.Mount) -> None:
    """As with `create` in ctl, numbers that the host uses are skipped, even if several threads create interfaces."""
    mount.ip("tuntap add tap0 mode tap")
    net.create(1)
    assert net.create(up=True).number == 2
    assert net.create(link="02-00-00-00-00-0A").address == "02:00:00:00:00:0a"
    made: list[virtfs.Virt] = []
    threads = [threading.Thread(target=lambda: made.extend(net.create() for _ in range(3))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(virt.number for virt in made) == list(range(4, 13))
    mount.ip("tuntap delete tap0 mode tap")


def test_interfaces_by_name(net: virtfs.Mount) -> None:
    v = net.create("virt5")
    assert (v.number, v.name, v) == (5, "virt5", net[5])
    assert net.create("6") == net.ensure("virt6") == net.ensure(net[6]) == virtfs.Virt(net.path, "virt6")
    for wrong in ("bridge0", "tap7", "virt07", "virt", "", True, 7.0, None):
        for make in (net.ensure, net.create):
            if wrong is not None or make == net.ensure:
                with pytest.raises(ValueError, match="is not an interface: give a number, or a name such as 'virt3'"):
                    make(wrong)  # type: ignore[arg-type]
    assert [v.number for v in net] == [5, 6]
    assert net.bridges == {}


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("down", "virt3 was not down"),
        ("reader", "virt3 had no reader"),
        ("frame", "no frame arrived at virt3"),
        ("gone", "virt3 was not destroyed"),
    ],
)
def test_a_wait_says_what_has_not_happened(v: virtfs.Virt, condition: Condition, sentence: str) -> None:
    with pytest.raises(TimeoutError, match=f"{sentence} within 0.01 s: '.*/virt3/wait/{condition}'"):
        v.wait(condition, timeout=0.01)


def test_a_time_out_is_a_number(net: virtfs.Mount, v: virtfs.Virt) -> None:
    with v.open() as port, net.events() as events:
        calls: Any = (port.recv, events.get, lambda timeout: v.wait("down", timeout=timeout))
        for call in calls:
            with pytest.raises(TypeError, match=r"^timeout='5' is not a number of seconds, such as 5$"):
                call(timeout="5")
            for wrong in (float("nan"), 1e9):
                with pytest.raises(ValueError, match=r"is not a number of seconds up to .*: None waits for ever"):
                    call(timeout=wrong)
    waiting = Waiting(v.wait, "down", float("inf"))
    waiting.asleep()
    v.up = False
    waiting.result()


def test_a_wait_for_what_is_off(v: virtfs.Virt) -> None:
    v.up = False
    with pytest.raises(TimeoutError, match="virt3 was not up within"):
        v.wait("up", timeout=0.01)
    v.carrier = "off"
    with pytest.raises(TimeoutError, match="the tap of virt3 had no carrier within"):
        v.wait("carrier", timeout=0.01)
    with pytest.raises(ValueError, match="'ready' is not a condition: these are up, down, carrier"):
        v.wait("ready")  # type: ignore[arg-type]


def test_several_verbs_are_one_line(net: virtfs.Mount, v: virtfs.Virt) -> None:
    v.set(mtu=1400, inet=["10.0.3.1/24", "10.0.4.1/24"], strict=True, impair="in delay 20ms", description="x y")
    assert v.host.addresses == ["10.0.3.1/24", "10.0.4.1/24"]
    with pytest.raises(OSError, match="wobble"):
        v.set(strict=False, no_inet="10.0.3.1/24", impair="wobble")
    assert (v.strict, len(v.host.addresses)) == (True, 2)
    v.set(strict=False, no_inet="10.0.3.1/24", impair=False, filter="arp", upopen=None)
    assert (v.strict, v.host.addresses, v.impair, v.filter) == (False, ["10.0.4.1/24"], "", "arp")
    v.set()
    for wrong, reason in {
        "": "is empty",
        " ": "is empty",
        "a\nb": "a line break",
        "#": "a comment",
        "a #b": "#",
    }.items():
        with pytest.raises(OSError, match=f"owner: .*{reason}"):
            v.set(owner=wrong, up=False)
    assert v.up


def test_verbs_that_take_the_rest_of_a_line(net: virtfs.Mount, v: virtfs.Virt) -> None:
    """A filter, a description and a mark fit into one call, and take effect together or not at all."""
    v.set(description="the # printer", filter="arp", mtu=1400)
    assert (v.description, v.filter, v.mtu) == ("the # printer", "arp", 1400)
    for make in (lambda **verbs: net.create(5, **verbs), net.create, lambda **verbs: net.ensure(7, **verbs)):
        w = make(description="a note", filter="udp", mtu=1300, history="64K", mark="it begins")
        assert (w.description, w.filter, w.mtu) == ("a note", "udp", 1300)
        assert b"it begins" in w.history()
        w.destroy()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"filter": "wobble", "description": "b"}, "wobble"),
        ({"filter": "udp", "description": "b" * 257}, "description: .*has 257 characters"),
        ({"filter": "udp", "mark": ""}, "mark: a mark needs a text"),
        ({"filter": ["udp", "tcp"]}, '"filter tcp" is a second filter'),
        ({"filter": "udp", "description": "a\nb"}, r'description: "a\\nb" contains a line break'),
    ]
    for verbs, reason in refused:
        for call in (v.set, net.create, lambda **verbs: net.create(5, **verbs)):
            with pytest.raises(OSError, match=reason):
                call(**verbs, up=False)
    assert (v.description, v.filter, v.up, list(net)) == ("the # printer", "arp", True, [v])


def test_a_line_break_begins_no_command(net: virtfs.Mount, v: virtfs.Virt) -> None:
    evil: Any = "a\ndestroy all"
    calls: Any = (v.mark, net.mark, net.check, net.destroy, net.uncable, net.bridge, lambda text: net.cable(v, text))
    for call in calls:
        with pytest.raises(OSError, match=r'"a\\ndestroy all" contains a line break'):
            call(evil)
    assert list(net) == [v]


def test_a_switch_takes_what_is_a_truth_value(net: virtfs.Mount, v: virtfs.Virt) -> None:
    off: Any = 0
    on: Any = 1
    v.set(up=off, strict=on)
    assert (v.up, v.strict) == (False, True)
    assert net.ensure(v, up=on).up
    for wrong in ("1", "on", 2, [True]):
        with pytest.raises(TypeError, match=r"up=.*: up has no value; give True or False"):
            v.set(up=wrong, strict=False)  # type: ignore[arg-type]
    assert v.strict


@pytest.mark.parametrize(
    ("verbs", "reason"),
    [
        ({"filter": True}, 'filter=True is not a text: give one, such as filter="arp or icmp", or False for -filter'),
        ({"filter": 0}, 'filter=0 is not a text: give one, such as filter="arp or icmp", or False for -filter'),
        ({"impair": 1}, "impair=1 is not a text: give one, such as"),
        ({"description": True}, "description=True: description needs a text"),
        ({"mark": True}, "mark=True: mark needs a text"),
        ({"mtu": True}, "mtu=True: mtu needs a number"),
        ({"inet": True}, "inet=True: inet needs an address, such as 10.0.3.1/24"),
        ({"impair": {"loss": "5%"}}, "impair={'loss': '5%'} is not a text: give one, such as impair=\"delay 20ms"),
        ({"filter": b"udp"}, "filter=b'udp' is not a text: give one, such as filter="),
        ({"inet": [["10.0.3.1/24"]]}, "inet=['10.0.3.1/24'] is not a text: give one"),
        ({"description": [None]}, "description=None is not a text: give one"),
    ],
)
def test_a_verb_that_needs_a_text(net: virtfs.Mount, v: virtfs.Virt, verbs: Any, reason: str) -> None:
    """What is set stays set."""
    v.set(filter="arp", description="the printer", impair="loss 1%")
    before = v.script
    for call in (v.set, net.create, lambda **verbs: net.ensure(3, **verbs)):
        with pytest.raises(TypeError, match=f"^{re.escape(reason)}"):
            call(up=False, **verbs)
    assert (v.script, list(net)) == (before, [v])
    v.set(filter=False, description="", impair=False)
    assert (v.filter, v.description, v.impair) == ("", "", "")


@pytest.mark.parametrize(("name", "value"), [("filter", ["arp"]), ("description", True), ("mtu", None), ("impair", {})])
def test_an_attribute_takes_no_other_value(v: virtfs.Virt, name: str, value: Any) -> None:
    v.set(filter="arp", description="the printer", impair="loss 1%")
    before = v.script
    with pytest.raises(TypeError, match=f"^{re.escape(f'{name}={value!r}')}.* give "):
        setattr(v, name, value)
    assert v.script == before


def test_commands_are_texts(net: virtfs.Mount, v: virtfs.Virt) -> None:
    calls: Any = (net.ctl, net.mark, net.check, net.destroy, v.ctl, v.mark, lambda wrong: v.write("mtu", wrong))
    for call in calls:
        with pytest.raises(TypeError, match=r"\['create 5'\] is not a text: give one"):
            call(["create 5"])
    assert list(net) == [v]


def test_a_mode_is_a_number_or_octal_digits(v: virtfs.Virt) -> None:
    modes: tuple[Any, ...] = (0o640, "640", "0640")
    for mode in modes:
        v.set(mode=0o600)
        v.set(mode=mode)
        assert v.mode == 0o640
        v.mode = 0o600
        v.mode = mode
        assert v.mode == 0o640


def test_a_namespace_that_is_another_path(v: virtfs.Virt) -> None:
    calls: Any = (lambda path: v.set(netns=path), lambda path: setattr(v.host, "netns", path))
    for call in calls:
        with pytest.raises(OSError, match=r'"/nonexist" is neither .*, nor a path such as /proc/PID/ns/net or '):
            call(Path("/nonexist"))


def test_owner_group_and_mode(mount: Mount, v: virtfs.Virt) -> None:
    v.owner, v.group = "nobody", 1
    v.mode = 0o640
    assert (v.owner, v.group, v.mode) == (65534, 1, 0o640)
    assert mount.sh("stat -c '%u %g %a' virt3/frame") == "65534 1 640\n"


def test_the_host_end(mount: Mount, net: virtfs.Mount, v: virtfs.Virt) -> None:
    net.bridge("bridge0", up=True)
    v.host.address, v.host.bridge = "02:00:00:00:00:aa", "bridge0"
    assert "02:00:00:00:00:aa" in mount.ip("link show tap3 master bridge0")
    assert (v.host.bridge, v.host.name, v.host.up) == ("bridge0", "tap3", True)


def test_who_has_it_open(v: virtfs.Virt) -> None:
    with v.open("w") as port:
        port.send(frame(60))
        (client,) = v.clients
    assert (client.pid, client.uid, client.file) == (os.getpid(), os.getuid(), "frame")
    assert (client.taken, client.dropped) == (0, 0)


@pytest.mark.parametrize("how", [bytes, bytearray, memoryview, io.BytesIO, "path"])
def test_inject(v: virtfs.Virt, tmp_path: Path, how: Any) -> None:
    path = tmp_path / "three.pcap"
    path.write_bytes(RECORDING)
    v.inject(path if how == "path" else how(RECORDING))
    assert v.stats["tx_frames"] == 3


@pytest.mark.parametrize("wrong", [5, None, [bytes(60)], io.StringIO("text")])
def test_inject_takes_a_recording(v: virtfs.Virt, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^{type(wrong).__name__} is no recording: give a path, .* open"):
        v.inject(wrong)


def test_inject_says_what_is_wrong(v: virtfs.Virt) -> None:
    with fails(errno.EINVAL, r"byte 0"):
        v.inject(b"no capture at all")
    with fails(errno.EINVAL, r"the file is truncated"):
        v.inject(RECORDING[:-7])
    with open(v.path / "inject", "wb", buffering=0), fails(errno.EBUSY):
        v.inject(RECORDING)


def test_captures(net: virtfs.Mount, v: virtfs.Virt) -> None:
    v.history_size = 65536
    with v.capture() as one, net.capture() as all_of_them:
        v.inject(RECORDING)
        for file in (one, all_of_them):
            capture = b""
            while capture.count(RECORDING[40:100]) < 3:
                capture += file.read(65536)
    assert v.history().count(RECORDING[40:100]) == 3


def test_waiting(v: virtfs.Virt) -> None:
    v.wait("up")
    with pytest.raises(TimeoutError):
        v.wait("down", timeout=0.02)
    waiting = Waiting(v.wait, "down", PATIENCE)
    waiting.asleep()
    v.up = False
    waiting.result()
    gone, up = Waiting(v.wait, "gone"), Waiting(v.wait, "up")
    for each in (gone, up):
        each.asleep()
    v.destroy()
    gone.result()
    with fails(errno.ENXIO):
        up.result()


def test_a_clone_ends_with_its_block(net: virtfs.Mount) -> None:
    with net.clone() as v:
        v.set(up=True, mtu=1400)
        assert [v] == list(net)
    until(lambda: v not in list(net), "the interface is gone")


def test_cables(net: virtfs.Mount, v: virtfs.Virt) -> None:
    w = net.create(4, up=True)
    cable = net.cable(3, w, "out loss 1%")
    assert net.cables == [cable]
    cable.destroy()
    assert net.cable(v, 4, delay="20ms 5ms", loss="1%", seed=7).impair == "delay 20ms 5ms loss 1% seed 7"
    assert net.cables[0].impair == "delay 20ms 5ms loss 1% seed 7"
    with pytest.raises(FileExistsError):
        net.cable(3, 4)
    net.uncable(3, 4)
    with pytest.raises(FileNotFoundError, match="cable"):
        cable.destroy()
    with pytest.raises(FileNotFoundError, match="virt3 and virt4: read its counters before you remove it"):
        cable.stats  # noqa: B018
    net.cable(3, 4)
    net.uncable(w)
    with pytest.raises(FileNotFoundError, match="virt3 has no cable"):
        net.uncable(3)
    with pytest.raises(OSError, match="wobble"):
        net.cable(3, 4, wobble=3)  # type: ignore[call-arg]
    misspelt: tuple[Any, ...] = (({"dealy": "5ms"}, ""), ({}, "dealy 5ms"))
    for words, text in misspelt:
        with pytest.raises(OSError, match=r'"dealy" is not an impairment .*: did you mean "delay"\?'):
            net.cable(3, 4, text, **words)


def test_the_impairment_of_a_cable_cannot_be_set(net: virtfs.Mount, v: virtfs.Virt) -> None:
    cable = net.cable(v, net.create(4), "loss 1%")
    with pytest.raises(AttributeError, match=r"make a new cable with uncable\(\) and cable\(\), or set it at an end"):
        cable.impair = "loss 5%"  # type: ignore[misc]
    with pytest.raises(AttributeError, match=r"^ends of a cable cannot be set$"):
        cable.ends = ("virt4", "virt3")  # type: ignore[misc]
    assert net.cables == [cable]
    assert cable.impair == "loss 1%"


@pytest.mark.parametrize(
    ("text", "words", "impair"),
    [
        ("out loss 20% in delay 1ms", {"seed": 5}, "in delay 1ms seed 5 out loss 20% seed 5"),
        ("out loss 20%", {"seed": 5}, "out loss 20% seed 5"),
        ("out loss 20%", {"delay": "1ms", "seed": None}, "in delay 1ms out delay 1ms loss 20%"),
        ("in reorder 5%", {"delay": "1ms", "seed": 5}, "in delay 1ms reorder 5% seed 5 out delay 1ms seed 5"),
        ("loss 20", {"seed": 5}, "loss 20% seed 5"),
        ("delay 20", {}, "delay 20us"),
        ("", {"delay": "1000us", "limit": 1000}, "delay 1ms"),
        ("in delay 1ms out delay 1ms", {}, "delay 1ms"),
    ],
)
def test_keywords_apply_to_both_directions_of_a_cable(
    net: virtfs.Mount, v: virtfs.Virt, text: str, words: Any, impair: str
) -> None:
    assert net.cable(v, net.create(4), text, **words).impair == impair
    assert net.cables[0].impair == impair


def test_keywords_of_an_impairment_that_are_wrong(net: virtfs.Mount, v: virtfs.Virt) -> None:
    net.create(4)
    cases: tuple[tuple[Any, Any, str], ...] = (
        ("out seed 7 loss 1%", {"seed": 5}, 'seed=5 is also in the text "out seed 7 loss 1%": give it once'),
        ("", {"delay": 20}, 'delay=20 has no unit: give a text, such as delay="20ms"'),
        ("", {"delay": "20"}, "delay='20' has no unit: give a text, such as delay=\"20ms\""),
        ("", {"delay": "20ms 5"}, "delay='20ms 5' has no unit"),
        ("", {"delay": "20 ms"}, "delay='20 ms': write \"20ms\", without a blank"),
        ("", {"loss": "1 %"}, "loss='1 %': write \"1%\", without a blank"),
        ("", {"loss": "gemodel 1% 10"}, "loss='gemodel 1% 10' has no unit"),
        ("", {"delay": ("10ms", "5ms")}, "delay=('10ms', '5ms') is not a text: give one, such as delay=\"20ms\""),
        ("", {"loss": ["5%"]}, "loss=['5%'] is not a text: give one, such as loss=\"1%\""),
        ("", {"seed": [5]}, "seed=[5] is not a text: give one"),
        ({"loss": "5%"}, {}, "impair={'loss': '5%'} is not a text: give one, such as impair="),
    )
    for text, words, reason in cases:
        with pytest.raises(TypeError, match=re.escape(reason)):
            net.cable(3, 4, text, **words)
    for call in (v.set, net.create):
        with pytest.raises(TypeError, match="seed=5 is not a verb: give it in a text, such as impair="):
            call(impair="loss 1%", seed=5)  # type: ignore[call-arg]
    assert net.cables == []
    assert v.impair == ""


def test_bridges(mount: Mount, net: virtfs.Mount, v: virtfs.Virt) -> None:
    bridge = net.bridge("bridge0", up=True, add=[v], timeout=600)
    assert bridge == net.bridges["bridge0"]
    assert (bridge.members, str(bridge)) == (["tap3"], "bridge0")
    bridge.set(no_learn=v, static="virt3 02:00:00:00:00:07")
    assert ("02:00:00:00:00:07", "tap3", True) in {(k.address, k.member, k.static) for k in bridge.addresses}
    assert "tap3 flags=2<DISCOVER>" in bridge.status
    with pytest.raises(FileExistsError):
        bridge.add("virt3")
    mount.ip("link add host0 type veth peer name host1")
    bridge.add("host0", adopt=True)
    bridge.delete("host0")
    bridge.delete(v)
    with pytest.raises(FileNotFoundError, match=r"tap3|virt3"):
        bridge.delete(v)
    assert "timeout 600" in bridge.script
    bridge.destroy()
    assert net.bridges == {}
    mount.ip("link delete host0")
    assert lines.words({"add": "eth0 adopt", "flush": True}, BRIDGE) == "add eth0 adopt flush"


def test_a_bridge_without_a_name(net: virtfs.Mount, v: virtfs.Virt) -> None:
    """Its number is that of its first interface, so that two mounts in one namespace do not share it."""
    w = net.create(7)
    for add in (w, "virt7", [w, v], iter([w, v])):
        bridge = net.bridge(add=add)
        assert bridge.name == "bridge7"
        assert "tap7" in bridge.members
        bridge.destroy()
    for wrong in (None, "eth0 adopt", "virt", "virt3 virt7", iter(["eth0"])):
        with pytest.raises(ValueError, match="without a name needs an interface in `add`"):
            net.bridge(add=wrong)
    w.destroy()
    assert net.bridges == {}


def test_events(net: virtfs.Mount) -> None:
    with net.events() as events:
        with pytest.raises(TimeoutError):
            events.get(timeout=0)
        v = net.create(3, up=True)
        with v.open():
            pass
        v.mtu = 1400
        got: list[virtfs.Event] = []
        while not {"create", "close", "mtu"} <= {event.kind for event in got}:
            got.append(events.get(PATIENCE))
        net.destroy(3)
        assert next(events).kind in ("down", "destroy", "carrier")
    told = {event.kind: event.values for event in got}
    assert told["create"] == {}
    assert told["mtu"] == {"mtu": 1400}
    assert told["open"] == {"file": "frame", "uid": 0, "pid": os.getpid()}
    assert {event.name for event in got} == {"virt3"}


def test_reports(net: virtfs.Mount, v: virtfs.Virt) -> None:
    assert net.version.startswith(f"virtfs {virtfs.__version__}, ")
    assert net.read("version") == net.version
    assert net.ifconfig.startswith("virt3: ")
    assert v.script in net.script
    with pytest.raises(IsADirectoryError):
        net.read("virt3")


def test_an_interface_is_rebuilt_from_its_script(net: virtfs.Mount, v: virtfs.Virt) -> None:
    v.set(mtu=1400, inet="10.0.3.1/24", impair="delay 20ms", description="the printer")
    script = net.script
    v.destroy()
    net.ctl(script)
    assert net.script == script


def test_another_user(alone: Alone) -> None:
    """A user who owns an interface uses it, and is refused the rest with a sentence."""
    mount = alone()
    seen(mount).create(3, up=True, owner="nobody")
    program = mount.process(uid=65534)
    assert program.call(_as_owner) == (1400, 1, "PermissionError", '"inet 10.0.3.1/24": only root may use "inet"')


def _as_owner() -> tuple[int, int, str, str]:
    net = virtfs.Mount("/mnt/virt")
    v = net[3]
    v.mtu = 1400
    with v.open() as port:
        port.send(frame(60))
    try:
        net.create(4)
    except PermissionError as error:
        assert error.strerror == "Permission denied"  # noqa: PT017 (a refused open has no sentence)
    try:
        v.set(inet="10.0.3.1/24")
    except OSError as error:
        return v.mtu, v.stats["tx_frames"], type(error).__name__, error.strerror or ""
    raise AssertionError("not refused")


def test_a_directory_inside_a_mount(net: virtfs.Mount, v: virtfs.Virt) -> None:
    for inside in (v.path, v.path / "stats", net.path / "bridge"):
        with pytest.raises(FileNotFoundError, match=f'here: it is inside the one at "{net.path}"'):
            virtfs.Mount(inside)


def test_the_death_of_the_server(alone: Alone) -> None:
    mount = alone()
    net = seen(mount)
    v = net.create(3, up=True)
    waiting = Waiting(v.open().recv)
    waiting.asleep()
    mount.end()
    with fails(errno.ENXIO):
        waiting.result()
    with pytest.raises(FileNotFoundError, match="no virtfs is mounted here"):
        seen(mount)
