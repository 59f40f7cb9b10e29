"""netns: the host's end in another network namespace, and back."""

import errno
import os
import select
import subprocess
from collections.abc import Iterator

import pytest
from harness import told
from harness.fixtures import Alone
from harness.places import Place
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.sockets import There
from harness.waiting import until

PRI, ERR = select.POLLPRI, select.POLLERR


@pytest.fixture
def net(mount: Mount) -> Iterator[str]:
    """A named network namespace on the mount's machine."""
    mount.ip("netns add net1")
    yield "net1"
    if "net1" in mount.ip("netns list"):
        mount.ip("netns del net1")


def passes(virt: Virt, there: Place) -> None:
    """Assert that frames pass in both directions. there: where the tap is."""
    end, file = There(there, virt.tap), virt.open()
    end.send(frame(70, 1))
    assert file.read() == frame(70, 1)
    file.write(frame(71, 2))
    assert end.get() == frame(71, 2)
    file.close()


def test_by_the_name_and_home_by_an_empty_line(virt: Virt, net: str) -> None:
    mount = virt.mount
    virt.set("inet 10.0.3.1/24 inet6 fd00:3::1/64 mtu 1400 queue 99")
    virt.set(f"netns {net}")
    assert virt.read("tap/netns") == net
    assert not mount.has(virt.tap)
    there = told.link(mount, virt.tap, f"-n {net}")
    assert (there["mtu"], there["txqlen"], "UP" in there["flags"]) == (1400, 99, True)
    assert int(virt.read("tap/index")) == there["ifindex"]
    assert {"10.0.3.1/24", "fd00:3::1/64"} == told.addresses(mount, virt.tap, f"-n {net}"), "no link-local address"
    assert virt.read("ctl").rstrip().endswith(f"netns {net}")
    virt.write("tap/netns", "\n")
    assert virt.read("tap/netns") == ""
    assert {"10.0.3.1/24", "fd00:3::1/64"} == told.addresses(mount, virt.tap)
    assert "UP" in told.flags(mount, virt.tap)
    passes(virt, mount)


def test_by_a_process_and_by_the_file(virt: Virt, elsewhere: Place) -> None:
    virt.write("tap/netns", f"{elsewhere.pid}\n")
    assert virt.read("tap/netns") == str(elsewhere.pid)
    assert elsewhere.has(virt.tap)
    passes(virt, elsewhere)
    virt.write("tap/netns", "\n")
    assert virt.mount.has(virt.tap)
    passes(virt, virt.mount)


def test_from_one_to_another(virt: Virt, elsewhere: Place, net: str) -> None:
    virt.set("inet 10.0.3.1/24")
    for _ in range(3):
        virt.set(f"netns {elsewhere.pid}")
        passes(virt, elsewhere)
        virt.set(f"netns {net}")
        assert told.addresses(virt.mount, virt.tap, f"-n {net}") == {"10.0.3.1/24"}
    virt.set(f"netns {net}")  # where the tap is already
    virt.write("tap/netns", f"{net}\n")
    assert virt.read("tap/netns") == net


def test_where_it_is_made(mount: Mount, elsewhere: Place) -> None:
    mount.ctl(f"create 900 up inet 10.0.3.1/24 netns {elsewhere.pid}")
    assert told.addresses(elsewhere, "tap900") == {"10.0.3.1/24"}
    assert "UP" in told.flags(elsewhere, "tap900")
    mount.ctl("destroy 900")
    assert not elsewhere.has("tap900")


def test_ping_from_there(virt: Virt, elsewhere: Place) -> None:
    """The other namespace's kernel uses the tap: a reader of frame gets its ARP request."""
    virt.set("inet 10.0.3.1/24")
    virt.set(f"netns {elsewhere.pid}")
    file = virt.open()
    elsewhere.start("ping", "-c1", "-W1", "10.0.3.2", stdout=subprocess.DEVNULL)
    asked = file.read()
    assert asked[12:14] == b"\x08\x06"
    assert asked[38:42] == bytes([10, 0, 3, 2])


VERBS = [
    ("mtu 1300", "mtu", "1300"),
    ("down", "up", "0"),
    ("queue 31", "queue", "31"),
    ("promisc", "promisc", "1"),
    ("taplink 02:00:00:00:00:77", "tap/address", "02:00:00:00:00:77"),
    ("inet 10.9.0.1/24", "tap/addresses", "10.9.0.1/24"),
    ("inet6 fd00:9::1/64", "tap/addresses", "fd00:9::1/64"),
    ("bridge br9", "tap/bridge", "br9"),
    ("persist", "persist", "1"),
    ("upopen", "up", "0"),
    ("carrier open", "tap/carrier", "0"),
    ("link 02:00:00:00:00:78", "address", "02:00:00:00:00:78"),
    ("description far away", "description", "far away"),
    ("backlog 3", "backlog", "3"),
    ("owner 4001", None, None),
]


def test_all_verbs_keep_working(virts: Virts, elsewhere: Place) -> None:
    elsewhere.ip("link add br9 type bridge")
    for verb, file, value in VERBS:
        virt = virts()
        virt.set(f"netns {elsewhere.pid}")
        virt.set(verb)
        if file is not None:
            assert virt.read(file) == value, verb
        row = told.link(elsewhere, virt.tap)
        match verb.split():
            case ["mtu", mtu]:
                assert row["mtu"] == int(mtu)
            case ["down"] | ["upopen"]:
                assert "UP" not in row["flags"]
            case ["queue", queue]:
                assert row["txqlen"] == int(queue)
            case ["promisc"]:
                assert "PROMISC" in row["flags"]
            case ["taplink", mac]:
                assert row["address"] == mac
            case ["inet" | "inet6", address]:
                assert told.addresses(elsewhere, virt.tap) == {address}
                virt.set(f"-{verb.partition('/')[0]}")
                assert told.addresses(elsewhere, virt.tap) == set()
            case ["bridge", name]:
                assert row["master"] == name
                virt.set("-bridge")
                assert virt.read("tap/bridge") == ""
            case ["carrier", _]:
                assert "NO-CARRIER" in row["flags"]
                virt.open()
                assert "LOWER_UP" in told.flags(elsewhere, virt.tap)
        virt.mount.ctl(f"destroy {virt.unit}")
        assert not elsewhere.has(virt.tap)


CHANGES = [
    ("link set {tap} mtu 1300", "mtu", "1300"),
    ("link set {tap} down", "up", "0"),
    ("link set {tap} promisc on", "promisc", "1"),
    ("addr add 10.9.9.9/24 dev {tap}", "tap/addresses", "10.9.9.9/24"),
    ("link set {tap} name other", "tap/name", "other"),
    ("link set {tap} address 02:00:00:00:00:79", "tap/address", "02:00:00:00:00:79"),
    ("link set {tap} txqueuelen 44", "queue", "44"),
]


@pytest.mark.parametrize(("words", "name", "value"), CHANGES, ids=[words for words, _, _ in CHANGES])
def test_what_ip_does_there_shows_and_wakes(virt: Virt, elsewhere: Place, words: str, name: str, value: str) -> None:
    virt.set(f"netns {elsewhere.pid}")
    file = virt.mount.process().open(f"{virt.name}/{name}", os.O_RDONLY)
    file.read()
    waiting = file.begin_poll(PRI)
    elsewhere.ip(words.format(tap=virt.tap))
    assert waiting.result() & (PRI | ERR) == PRI | ERR
    until(lambda: virt.read(name) == value, f"{name} is {value}")


def test_an_open_file_survives_the_move(virt: Virt, elsewhere: Place) -> None:
    """For the kernel, a move is a down and an up, so that reads fail as after any down. The open file keeps working."""
    file = virt.open()
    virt.set(f"netns {elsewhere.pid}")
    There(elsewhere, virt.tap).send(frame(70))
    assert file.read() == frame(70)


def test_moved_from_outside(virt: Virt, net: str) -> None:
    mount = virt.mount
    file = mount.process().open(f"{virt.name}/tap/netns", os.O_RDONLY)
    file.read()
    waiting = file.begin_poll(PRI)
    mount.ip(f"link set {virt.tap} netns {net}")
    assert waiting.result() & PRI
    until(lambda: virt.read("tap/netns") == net, "the new namespace is known")
    assert virt.read("up") == "0", "the kernel sets an interface down when it moves it"
    reader = virt.open()
    with fails(errno.EHOSTDOWN):
        reader.read()
    reader.close()
    virt.set("up mtu 1300 inet 10.4.0.1/24")
    assert told.addresses(mount, virt.tap, f"-n {net}") >= {"10.4.0.1/24"}
    mount.ip(f"-n {net} link set {virt.tap} netns {mount.pid}")
    until(lambda: virt.read("tap/netns") == "", "the tap is in the mount's namespace again")
    virt.set("up")
    passes(virt, mount)


def test_moved_from_outside_to_one_without_a_name(virt: Virt, elsewhere: Place) -> None:
    virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
    until(lambda: virt.read("tap/netns"), "the move is noticed")
    virt.set("up inet 10.4.0.1/24")
    assert told.addresses(elsewhere, virt.tap) >= {"10.4.0.1/24"}
    passes(virt, elsewhere)
    virt.write("tap/netns", "\n")
    passes(virt, virt.mount)


def is_lost(virt: Virt, file: File) -> None:
    """Assert that calls fail with ENXIO once the tap is lost, and that `destroy` removes the interface."""
    with fails(errno.ENXIO):
        file.read()
    with fails(errno.ENXIO):
        file.write(frame())
    for verb in ("up", "mtu 1400", "netns net1"):
        with fails(errno.ENXIO):
            virt.set(verb)
    with fails(errno.ENXIO):
        virt.open()
    assert virt.mount.read(f"{virt.name}/wait/gone") == "1"
    virt.mount.ctl(f"destroy {virt.unit}")
    assert not virt.mount.exists(virt.name)


def test_the_namespace_dies(virt: Virt, net: str) -> None:
    file = virt.open()
    virt.set(f"netns {net}")
    waiting = file.begin_read().waiting()
    virt.mount.ip(f"netns del {net}")
    with fails(errno.ENXIO):
        waiting.result()
    is_lost(virt, file)


def test_the_process_of_the_namespace_dies(virt: Virt) -> None:
    place = Place()
    file = virt.open()
    virt.set(f"netns {place.pid}")
    waiting = file.begin_read().waiting()
    place.close()
    with fails(errno.ENXIO):
        waiting.result()
    is_lost(virt, file)


def test_one_that_moved_from_outside_dies_with_its_namespace(virt: Virt, net: str) -> None:
    """virtfs does not keep a namespace alive, even if another program has moved the tap there."""
    file = virt.open()
    virt.mount.ip(f"link set {virt.tap} netns {net}")
    until(lambda: virt.read("tap/netns") == net, "the new namespace is known")
    virt.mount.ip(f"-n {net} link set {virt.tap} addrgenmode none")  # so that the host sends nothing by itself
    virt.set("up")
    waiting = file.begin_read().waiting()
    virt.mount.ip(f"netns del {net}")
    with fails(errno.ENXIO):
        waiting.result()
    is_lost(virt, file)


def test_deleted_there(virt: Virt, elsewhere: Place) -> None:
    file = virt.open()
    virt.set(f"netns {elsewhere.pid}")
    waiting = file.begin_read().waiting()
    elsewhere.ip(f"link del {virt.tap}")
    with fails(errno.ENXIO):
        waiting.result()
    is_lost(virt, file)


@pytest.mark.parametrize("name", ["nosuch", "../../proc/self/ns/net", "4194303"])
def test_no_such_namespace(virt: Virt, name: str) -> None:
    before = virt.read("ctl")
    with pytest.raises(OSError, match=r"\[Errno"):
        virt.set(f"mtu 1300 netns {name}")
    assert virt.read("ctl") == before
    assert name in virt.mount.read("last_error")
    assert virt.mount.has(virt.tap)
    with pytest.raises(OSError, match=r"\[Errno"):
        virt.mount.ctl(f"create 901 netns {name}")
    assert not virt.mount.exists("virt901")
    assert not virt.mount.has("tap901")


@pytest.mark.parametrize("make", ["touch", "mkfifo", "mkdir"])
def test_a_name_that_is_no_namespace(alone: Alone, make: str) -> None:
    mount = alone()
    virt = Virt(mount, 3)
    mount.sh(f"{make} /run/netns/wrong")
    with pytest.raises(OSError, match=r"\[Errno"):
        virt.set("netns wrong")
    assert mount.has("tap3")


def test_the_names_place_is_taken(virt: Virt, elsewhere: Place) -> None:
    elsewhere.ip(f"tuntap add {virt.tap} mode tap")
    virt.set("inet 10.4.0.1/24")
    before = virt.read("ctl")
    with fails(errno.EEXIST):
        virt.set(f"mtu 1300 netns {elsewhere.pid}")
    assert virt.read("ctl") == before
    assert told.addresses(virt.mount, virt.tap) == {"10.4.0.1/24"}
    passes(virt, virt.mount)
    elsewhere.ip(f"link del {virt.tap}")


def test_it_ends_a_line_that_changes(virt: Virt, net: str) -> None:
    with fails(errno.EINVAL):
        virt.set(f"netns {net} up")
    assert "netns cannot be undone" in virt.mount.read("last_error")
    assert virt.mount.has(virt.tap)


@pytest.mark.parametrize("kind", ["create", "ensure"])
@pytest.mark.parametrize(
    "verbs", ["netns {} up inet 10.7.0.1/24", "up netns {} inet 10.7.0.1/24", "up inet 10.7.0.1/24 netns {}"]
)
def test_anywhere_in_a_line_that_makes_it(mount: Mount, net: str, kind: str, verbs: str) -> None:
    mount.ctl(f"{kind} 902 {verbs.format(net)} mode 644")
    assert mount.read("virt902/tap/netns") == net
    assert told.addresses(mount, "tap902", f"-n {net}") == {"10.7.0.1/24"}
    assert "UP" in told.link(mount, "tap902", f"-n {net}")["flags"]
    assert not mount.has("tap902")


def test_verbs_after_it_act_there(mount: Mount, net: str) -> None:
    """The bridge is one in that namespace, and ctl shows all verbs in one line."""
    mount.ip(f"-n {net} link add br9 type bridge")
    mount.ctl(f"create 903 netns {net} bridge br9 queue 31 description there")
    assert told.link(mount, "tap903", f"-n {net}")["master"] == "br9"
    (line,) = mount.read("ctl").splitlines()
    assert line.endswith(f"queue 31 netns {net} bridge br9 description there")
    verbs = mount.read("virt903/ctl")
    assert verbs.splitlines()[1:] == ["bridge br9 description there"]
    mount.ctl("destroy 903")
    mount.ctl(line)
    assert mount.read("ctl") == line
    mount.write("virt903/ctl", f"{verbs}\n")  # as for every file, what was read can be written
    assert mount.read("ctl") == line


FAILING = ["bridge nosuch", "netns nosuch", "mtu 1300 bridge nosuch"]


@pytest.mark.parametrize("verbs", FAILING)
def test_a_failure_after_it_undoes_everything(mount: Mount, net: str, verbs: str) -> None:
    for kind in ("create", "ensure"):
        with fails(errno.ENXIO):
            mount.ctl(f"{kind} 904 up netns {net} inet 10.7.0.1/24 {verbs}")
        assert "nosuch" in mount.read("last_error")
        assert not mount.exists("virt904")
        assert not mount.has("tap904")
        assert "tap904" not in mount.ip(f"-n {net} -br link")


@pytest.mark.parametrize("verbs", FAILING)
def test_a_tap_that_was_found_goes_back(mount: Mount, net: str, verbs: str) -> None:
    mount.ip("tuntap add tap905 mode tap")
    mount.ip("address add 10.5.0.1/24 dev tap905")
    before = told.link(mount, "tap905")
    with fails(errno.ENXIO):
        mount.ctl(f"create 905 up netns {net} inet 10.7.0.1/24 {verbs}")
    assert not mount.exists("virt905")
    assert "tap905" not in mount.ip(f"-n {net} -br link")
    after = told.link(mount, "tap905")
    assert [after[key] for key in ("mtu", "address", "txqlen")] == [before[key] for key in ("mtu", "address", "txqlen")]
    assert told.addresses(mount, "tap905") == {"10.5.0.1/24"}
    mount.ip("link del tap905")


def test_ensure_of_one_that_is_there_already(mount: Mount, net: str) -> None:
    line = f"ensure 906 netns {net} up inet 10.7.0.1/24"
    mount.ctl(line)
    before = mount.read("ctl")
    mount.ctl(line)
    mount.ctl(f"{line} mtu 1400")
    assert mount.read("ctl") == before.replace(" inet", " mtu 1400 inet")


def test_ensure_does_not_move_one_in_the_middle_of_a_line(virt: Virt, net: str) -> None:
    before = virt.read("ctl")
    with fails(errno.EINVAL):
        virt.mount.ctl(f"ensure {virt.unit} mtu 1300 netns {net} inet 10.7.0.1/24")
    assert f'netns would move the existing {virt.name} to "{net}"' in virt.mount.read("last_error")
    assert virt.read("ctl") == before
    virt.mount.ctl(f"ensure {virt.unit} mtu 1300 netns {net}")
    assert virt.read("tap/netns") == net


def test_the_mount_ends_while_one_is_away(alone: Alone, elsewhere: Place) -> None:
    mount = alone()
    mount.ctl(f"create 3 up netns {elsewhere.pid}\ncreate 4 up\nvirt4 netns {elsewhere.pid}")
    assert mount.end() == 0
    assert elsewhere.links() == ["lo"]
