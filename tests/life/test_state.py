"""-o state=FILE: the file always has the text of ctl, from which the next mount recreates the state."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import told
from harness.fixtures import Alone
from harness.lasting import Lasting, LastingOnes
from harness.places import DIR, Place, finished
from harness.process import fails
from harness.serving import ENVIRONMENT, PROJECT, Mount, Virt, frame
from harness.waiting import until

from . import programs

STATE = "/mnt/state"
OPTION = f"state={STATE}"
VIRTFS = f"env PYTHONPATH={PROJECT} {sys.executable} -m virtfs"


def kept(mount: Mount) -> str:
    """Return the state file's text, without the newline at its end."""
    return mount.root.call(Path.read_text, Path(STATE)).removesuffix("\n")


def same(mount: Mount) -> str:
    """Assert that the file and ctl have the same text, and return it."""
    told, file = mount.read("ctl"), kept(mount)
    assert file == told
    return told


COMMANDS = [
    "create 3 up mtu 1400 inet 10.0.3.1/24",
    "create 5 owner 4001 group 4002 mode 640",
    "virt3 description a # note, of ü and more",
    "virt3 queue 99 backlog 4 strict exclusive both",
    "virt3 inet6 fd00::1/64 promisc",
    "virt5 persist upopen carrier open antispoof link 02:00:00:00:00:05 taplink 02:00:00:00:00:06",
    "create bridge0 up inet 10.9.0.1/24",
    "virt3 bridge bridge0",
    "bridge0 -learn tap3 priority 7",
    "create\ncreate\ncreate",
    "virt3 -inet 10.0.3.1 down -bridge",
    "destroy bridge0",
    "virt5 -persist",
    "destroy 3\ndestroy 5",
]


def test_it_is_what_ctl_gives_after_each_command(alone: Alone) -> None:
    mount = alone(OPTION)
    assert same(mount) == ""
    before = ""
    for line in COMMANDS:
        mount.ctl(line)
        now = same(mount)
        assert now != before, line
        before = now
    for name in mount.units():
        mount.ctl(f"destroy {name}")
        same(mount)
    assert same(mount) == ""
    assert mount.sh(f"stat -c %a {STATE}") == "600\n"
    assert mount.sh("ls /mnt").split() == ["state", "virt"]


def test_files_and_calls_count_as_commands(alone: Alone) -> None:
    mount = alone(OPTION)
    mount.ctl("create 3 up")
    for path, text in (("mtu", "1400"), ("tap/address", "02:00:00:00:00:06"), ("description", "a note"), ("up", "0")):
        mount.write(f"virt3/{path}", f"{text}\n")
        same(mount)
    mount.sh("chmod 660 virt3/frame")
    assert "mode 0660" in same(mount)
    mount.sh("chown 4001:4002 virt3/frame")
    assert "owner 4001 group 4002" in same(mount)
    mount.write("virt3/ctl", "mtu 1300\n")
    assert "mtu 1300" in same(mount)


def test_refused_lines_leave_it_as_ctl_is(alone: Alone) -> None:
    mount = alone(OPTION)
    with fails(errno.ENXIO):
        mount.ctl("create 3\ncreate 4 up mtu 1400\nvirt9 up\ncreate 5")
    assert same(mount).count("create") == 2
    with fails(errno.ENXIO):
        mount.ctl("virt3 mtu 1300 bridge nosuch")
    assert "1300" not in same(mount)


OUTSIDE = [
    ("link set tap3 mtu 1300", "mtu 1300"),
    ("link set tap3 down", ""),
    ("addr add 10.0.4.1/24 dev tap3", "inet 10.0.4.1/24"),
    ("link set tap3 promisc on", "promisc"),
    ("link set tap3 master br5", "bridge br5"),
    ("link set tap3 nomaster", ""),
    ("addr del 10.0.4.1/24 dev tap3", ""),
    ("link set tap3 netns net1", "netns net1"),
]


def _follows(mount: Mount, before: str) -> bool:
    """Return whether the state file has changed and has the text of ctl."""
    return kept(mount) not in (before, "") and kept(mount) == mount.read("ctl")


def test_it_follows_what_ip_does(alone: Alone) -> None:
    mount = alone(OPTION)
    mount.ip("link add br5 type bridge")
    mount.ip("netns add net1")
    mount.ctl("create 3 up")
    for words, said in OUTSIDE:
        before = kept(mount)
        mount.ip(words)
        until(partial(_follows, mount, before), words)
        assert said in kept(mount)
    mount.ctl("destroy 3")
    mount.ip("netns del net1")
    mount.ip("link del br5")


# --- replaying the file after a kill or a normal end


def snapshot(mount: Mount, names: list[str]) -> dict[str, str]:
    """Return all that can be read of the interfaces, except counters."""
    files = "address mtu up queue backlog strict exclusive promisc antispoof persist upopen carrier description"
    tap = "tap/name tap/address tap/addresses tap/netns tap/bridge tap/up"
    texts = {f"{name}/{file}": mount.read(f"{name}/{file}") for name in names for file in f"{files} {tap}".split()}
    rights = {name: mount.sh(f"cd {name}; stat -c '%a %u %g' frame ctl mtu tap/address next") for name in names}
    return texts | rights | {"ctl": mount.read("ctl")}


ALL = """\
create bridge0 up inet 10.9.0.1/24 priority 7
create 1 up mtu 1400 inet 10.0.1.1/24 inet6 fd00:1::1/64 persist bridge bridge0 owner 4001
create 2 up queue 77 backlog 5 strict exclusive none owner 4001 group 4002 mode 660 antispoof description the # second
create 3 link 02:00:00:00:00:33 taplink 02:00:00:00:00:34 promisc persist carrier open up
create 4 upopen mode 604
create 6 up inet 10.0.6.1/24 netns net1
create 7 up inet 10.0.7.1/24 persist netns net1
bridge0 -learn tap1
"""


def furnish(mount: Lasting) -> None:
    """Create interfaces of every kind."""
    mount.ip("netns add net1")
    mount.write("ctl", ALL)


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM"])
def test_everything_comes_again(lasting: LastingOnes, way: str) -> None:
    mount = lasting(OPTION)
    furnish(mount)
    names = [f"virt{unit}" for unit in (1, 2, 3, 4, 6, 7)]
    before, file = snapshot(mount, names), kept(mount)
    indices = {tap: told.link(mount, tap)["ifindex"] for tap in ("tap1", "tap3")}
    there = told.link(mount, "tap7", "-n net1")["ifindex"]
    mount.kill() if way == "SIGKILL" else mount.end()
    assert kept(mount) == file, "the end of a mount does not change the file"
    assert {tap: told.link(mount, tap)["ifindex"] for tap in indices} == indices
    assert {"10.0.1.1/24", "fd00:1::1/64"} <= told.addresses(mount, "tap1")
    if way == "SIGKILL":
        assert told.link(mount, "tap1")["master"] == "bridge0"
    assert "NO-CARRIER" in told.flags(mount, "tap1")
    assert [mount.has(tap) for tap in ("tap2", "tap4")] == [False, False]
    mount.again(OPTION)
    assert snapshot(mount, names) == before
    assert same(mount) == file
    assert {tap: told.link(mount, tap)["ifindex"] for tap in indices} == indices
    assert told.link(mount, "tap7", "-n net1")["ifindex"] == there
    assert "LOWER_UP" in told.flags(mount, "tap1"), "the tap has a carrier again"
    assert "NO-CARRIER" in told.flags(mount, "tap3"), "carrier open: there is none until frame is opened"
    for name in names:
        mount.ctl(f"destroy {name}")
    assert [name for name in mount.links() if name.startswith("tap")] == []
    assert "tap" not in mount.ip("-n net1 -br link")


def test_twice_and_thrice(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    furnish(mount)
    texts = [same(mount)]
    for _ in range(3):
        mount.kill()
        mount.again(OPTION)
        texts.append(same(mount))
    assert texts[1:] == texts[:-1]


def test_the_owner_goes_on_as_before(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3 up owner 4001 persist")
    mount.kill()
    mount.again(OPTION)
    virt = Virt(mount, 9)
    mount.sh("echo mtu 1400 >virt3/ctl; head -c 60 /dev/zero >virt3/frame", uid=4001)
    assert mount.read("virt3/stats/tx_frames") == "1"
    assert mount.refused("echo up >virt9/ctl", uid=4001)
    virt.open(os.O_WRONLY).write(frame())


def test_killed_in_the_middle_of_commands(lasting: LastingOnes) -> None:
    """All that the file contains is recreated. At most the command that was running is missing."""
    mount = lasting(OPTION)
    shell = mount.shell("for n in {0..200}; do echo create $n up >ctl && echo $n; done", stdout=-1)
    assert shell.stdout is not None
    done = [int(shell.stdout.readline()) for _ in range(12)]
    mount.server.send_signal(signal.SIGKILL)
    done += [int(line) for line in shell.stdout]  # not by communicate(), which misses lines that are buffered
    finished(shell)
    mount.kill()
    file = kept(mount)
    mount.again(OPTION)
    assert same(mount) == file
    assert set(done) <= {int(name.removeprefix("virt")) for name in mount.units()} <= {*done, len(done)}


@pytest.mark.parametrize("persist", ["", "persist "], ids=["not persistent", "persistent"])
def test_the_namespace_of_a_process_is_lost(lasting: LastingOnes, elsewhere: Place, persist: str) -> None:
    mount = lasting(OPTION)
    line = f"create 3 up inet 10.0.3.1/24 {persist}owner 4001 description far"
    mount.ctl(f"{line}\ncreate 4 up\nvirt3 netns {elsewhere.pid}")
    file = same(mount)
    mount.kill()
    mount.again(OPTION)
    assert same(mount) == file
    assert (mount.read("virt3/up"), mount.read("virt3/description")) == ("0", "far")
    with fails(errno.ENXIO):
        mount.process().open("virt3/frame", os.O_RDONLY)
    with fails(errno.ENXIO):
        mount.ctl("virt3 up")
    assert mount.sh("stat -c %u virt3/frame") == "4001\n"
    assert not mount.has("tap3")
    assert mount.read("virt4/up") == "1"
    mount.ctl("destroy 3\ncreate 3 up")
    assert mount.has("tap3")


def test_verbs_after_the_namespace_of_a_process(lasting: LastingOnes, elsewhere: Place) -> None:
    """Verbs for the tap would now act in the mount's namespace, so they are left out."""
    mount = lasting(OPTION)
    elsewhere.ip("link add br9 type bridge")
    mount.ctl(f"create 3 netns {elsewhere.pid} bridge br9 up description far")
    mount.end()
    mount.ip("link add br9 type bridge")
    mount.again(OPTION)
    assert mount.read("virt3/description") == "far"
    assert mount.read("ctl").count(f"netns {elsewhere.pid}") == 1
    assert not mount.has("tap3")
    assert "line" not in "".join(mount.log)
    mount.ip("link del br9")


def test_a_file_with_a_line_for_what_follows_netns(lasting: LastingOnes) -> None:
    """Earlier versions wrote such files."""
    mount = lasting()
    mount.ip("netns add net1")
    mount.ip("-n net1 link add br9 type bridge")
    mount.end()
    text = "create 3 up inet 10.0.3.1/24 netns net1\nvirt3 bridge br9 description far\nvirt3 filter arp\n"
    mount.root.call(Path.write_text, Path(STATE), text)
    mount.again(OPTION)
    assert told.link(mount, "tap3", "-n net1")["master"] == "br9"
    assert same(mount).endswith("inet 10.0.3.1/24 up netns net1 bridge br9 description far\nvirt3 filter arp")


def test_a_named_namespace_that_is_gone(lasting: LastingOnes) -> None:
    """Its line is logged. The other interfaces are recreated."""
    mount = lasting(OPTION)
    furnish(mount)
    mount.kill()
    mount.ip("netns del net1")
    mount.again(OPTION)
    assert {"virt1", "virt2", "virt3", "virt4"} <= set(mount.units())
    assert "net1" in "".join(mount.log)
    same(mount)


def test_a_tap_that_somebody_else_holds_now(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3 up\ncreate 4 up")
    mount.kill()
    mount.ip("link add tap3 type bridge")
    mount.again(OPTION)
    assert mount.units() == ["virt4"]
    assert "create 3" in "".join(mount.log)
    same(mount)
    assert mount.has("tap3")


def test_a_clone_does_not_come_again(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3")
    holder = mount.process()
    holder.open("clone", os.O_RDWR)
    assert "create 0" not in same(mount)
    mount.kill()
    mount.again(OPTION)
    assert mount.units() == ["virt3"]
    same(mount)


def test_each_adopted_member_gets_its_own_addresses_back(lasting: LastingOnes) -> None:
    """After a kill too, although the bridge then has the addresses of both."""
    mount = lasting(OPTION)
    for number, name in enumerate(("one", "two"), 1):
        mount.ip(f"link add {name} type veth peer name far{number}")
        mount.ip(f"link set far{number} up")
        mount.ip(f"link set {name} addrgenmode none up")
        mount.ip(f"address add 10.5.{number}.1/24 dev {name}")
        mount.ip(f"route add 10.6.{number}.0/24 via 10.5.{number}.9")
    mount.ctl("create bridge0 add one adopt add two adopt inet 10.5.9.1/24")
    text = same(mount)
    assert "# adopted: bridge0 one 10.5.1.1/24\n# adopted: bridge0 two 10.5.2.1/24\n" in text
    mount.kill()
    mount.again(OPTION)
    assert same(mount) == text
    mount.ctl("bridge0 inet 10.5.8.1/24 delete one")
    assert set(told.addresses(mount, "bridge0")) >= {"10.5.8.1/24", "10.5.9.1/24"}
    assert "10.6.1.0/24 via 10.5.1.9 dev one" in mount.ip("route")
    mount.ctl("bridge0 delete two")
    assert "10.6.2.0/24 via 10.5.2.9 dev two" in mount.ip("route")
    inet = {name: set(told.addresses(mount, name)) for name in ("one", "two")}
    assert inet == {"one": {"10.5.1.1/24"}, "two": {"10.5.2.1/24"}}
    mount.ctl("destroy bridge0")
    mount.delete_links("one", "two")


@pytest.mark.parametrize("line", ["bridge0 delete one\nbridge0 add one", "bridge0 delete one add one"])
def test_a_member_that_was_once_adopted(lasting: LastingOnes, line: str) -> None:
    """After it has its addresses back and is a plain member, a kill leaves no address of an unfinished line."""
    mount = lasting(OPTION)
    mount.ip("link add one type veth peer name far")
    mount.ip("link set far up")
    mount.ip("link set one addrgenmode none up")
    mount.ip("address add 10.5.1.1/24 dev one")
    mount.ctl(f"create bridge0 add one adopt\n{line}")
    assert set(told.addresses(mount, "one")) == {"10.5.1.1/24"}
    text = same(mount)
    mount.kill()
    mount.ip("address add 10.5.9.1/24 dev bridge0")  # as the line had done when the server was killed
    mount.again(OPTION)
    assert same(mount) == text
    assert "10.5.9.1/24" not in told.addresses(mount, "bridge0")
    mount.ctl("destroy bridge0")
    mount.delete_links("one")


def test_lines_of_a_bridge_mention_only_what_comes_again(lasting: LastingOnes) -> None:
    """The tap of a clone vanishes with the server, and a renamed tap comes again as tapN."""
    mount = lasting(OPTION)
    mount.ip("link add other type veth peer name far")
    mount.ctl("create bridge0 add other\ncreate 3 bridge bridge0")
    holder = mount.process()
    holder.open("clone", os.O_RDWR)
    mount.ctl("virt0 bridge bridge0\nbridge0 -learn tap0 -learn tap3 static tap3 02:00:00:00:00:07")
    mount.ip("link set tap3 name renamed")
    until(lambda: mount.read("virt3/tap/name") == "renamed", "the tap is renamed")
    bridge = [line for line in same(mount).splitlines() if "bridge0 " in line and "create 3" not in line]
    assert bridge == ["create bridge0 add other", "bridge0 -learn tap3 static tap3 02:00:00:00:00:07"]
    mount.kill()
    mount.again(OPTION)
    assert "not replayed" not in same(mount)
    assert told.port(mount, "tap3")["learning"] is False
    mount.ip("link del other")


# --- while the state is being recreated

MANY = 20  # number of interfaces: creating them takes longer than a program needs to begin its first read
_FIRST_READ = f"""
until mapfile rows </proc/self/mountinfo && [[ ${{rows[*]}} == *" {DIR} "*fuse.virtfs* ]]; do :; done
exec cat {DIR}/ctl
"""


def _begun(mount: Lasting, text: str) -> None:
    """Start a server that is to replay `text`. Returns before the server is mounted or ready."""
    mount.end()
    mount.root.call(Path.write_text, Path(STATE), text)
    mount.end_programs()
    mount.log = []
    mount.begin(OPTION)


def _reader(mount: Lasting) -> "subprocess.Popen[str]":
    return mount.start("bash", "-c", _FIRST_READ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_whoever_can_read_sees_all_of_it(lasting: LastingOnes) -> None:
    mount = lasting()
    lines = ["create bridge0 up"]
    for n in range(1, MANY + 1):
        lines.append(f"create {n} queue 77 owner 4001 up inet 10.1.{n}.1/24 bridge bridge0 description the {n}th")
        lines.append(f"virt{n} filter arp")
    lines += [f"cable {n} {n + 1}" for n in range(1, MANY, 2)]
    _begun(mount, "\n".join(lines))
    first, complaint = finished(_reader(mount), 40)
    assert complaint == ""
    for words in ("create ", " queue 77 owner 4001 ", " bridge bridge0 description the ", " filter arp"):
        assert first.count(words) == MANY + (words == "create "), words
    assert first.count("cable ") == MANY / 2
    assert mount.end() == 0


ENDS: dict[str, Callable[[Lasting], object]] = {
    "SIGINT": lambda mount: mount.server.send_signal(signal.SIGINT),
    "SIGTERM": lambda mount: mount.server.send_signal(signal.SIGTERM),
    "umount -l": lambda mount: subprocess.run(mount.command("umount", "-l", DIR), check=True),
    "virtfs umount": lambda mount: subprocess.run(
        mount.command(sys.executable, "-m", "virtfs", "umount", DIR), env=ENVIRONMENT, cwd=PROJECT, check=True
    ),
}


def _waits(pid: int) -> bool:
    """Return whether a process waits until the FUSE server has answered FUSE_INIT (proc_pid_stack(5))."""
    return "fuse_get_req" in Path(f"/proc/{pid}/stack").read_text()


@pytest.mark.parametrize("way", ENDS)
def test_a_mount_that_ends_before_it_is_complete(lasting: LastingOnes, way: str) -> None:
    """Waiting readers get an error, nothing is left behind, and the state file stays as it was."""
    mount = lasting()
    text = "".join(f"create {n} up queue 77\n" for n in range(600))
    _begun(mount, text)
    reader, killed = _reader(mount), _reader(mount)
    for one in (reader, killed):
        until(partial(_waits, one.pid), "the program waits for the answer to FUSE_INIT")
    killed.send_signal(signal.SIGINT)
    finished(killed)
    # Place.has would enter the mount and wait, too.
    there = mount.command("ip", "-br", "link", "show", "tap5")
    until(lambda: subprocess.run(there, capture_output=True, check=False).returncode == 0, "some interfaces exist", 30)
    ENDS[way](mount)
    assert mount.ended() == 0
    said = "".join(mount.log)
    assert "is mounted" not in said, "the mount was never ready"
    assert "line" not in said, "lines that were not tried have not failed"
    output, complaint = finished(reader)
    assert (output, "cat: " in complaint) == ("", True)
    assert kept(mount) == text.removesuffix("\n")
    assert mount.links() == ["lo"]
    assert mount.mounts() == []


# --- the file


def test_it_is_never_seen_half_written(alone: Alone) -> None:
    mount = alone(OPTION)
    mount.ctl("create 50")
    mount.ctl("\n".join(f"create {n} description {n * 97}" for n in range(10)))
    watching = mount.process().begin(programs.texts_until, STATE, "virt50")
    whole = {kept(mount)}
    for number in range(60):
        mount.ctl(f"virt{number % 10} description {chr(97 + number % 26) * (1 + 250 * (number % 2))}")
        whole.add(kept(mount))
        assert kept(mount) == mount.read("ctl")
    mount.ctl("destroy 50")
    whole.add(kept(mount))
    seen = {text.removesuffix("\n") for text in watching.result()}
    assert len(seen) > 5
    assert seen <= whole


GARBAGE = (
    b"""\
# made: tap77 nonsense
create 3 up description the third
create 03
frobnicate
virt4 up
create 4 mtu 99999999999999999999999
\x01\xff\xfe\x80 \x07
create 5 description \xff\xfe
create 3 mtu 1400
create 6 inet 10.0.6.1/24 netns nosuch
create 7 bridge nosuch up
destroy 9
"""
    + b"x" * 70000
    + b"\ncreate 8 up"
)


def test_lines_that_say_nothing_are_logged(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.end()
    mount.root.call(Path.write_bytes, Path(STATE), GARBAGE)
    mount.again(OPTION)
    assert sorted(mount.units()) == ["virt3", "virt8"]
    assert mount.read("virt3/mtu") == "1400"
    assert mount.read("virt3/up") == mount.read("virt8/up") == "1"
    assert mount.links() == ["lo", "tap3", "tap8"]
    log = "".join(mount.log)
    for number in (3, 4, 5, 6, 7, 8, 10, 11, 12, 13):
        assert f"line {number}:" in log, number
    assert "Traceback" not in log
    assert max(map(len, log.splitlines())) < 1000
    same(mount)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# nothing\n"])
def test_one_with_nothing_in_it(lasting: LastingOnes, text: bytes) -> None:
    mount = lasting()
    mount.end()
    mount.root.call(Path.write_bytes, Path(STATE), text)
    mount.again(OPTION)
    assert same(mount) == ""
    mount.ctl("create 3")
    same(mount)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"# file systems\n/dev/sda1 / ext4 defaults 0 1\n", 'line 2: "/dev/sda1 / ext4 defaults 0 1"'),
        (b"127.0.0.1 localhost\n::1 localhost\n", 'line 1: "127.0.0.1 localhost"'),
        (b"create 3\n" + bytes(3000), "NUL bytes"),
        (bytes(5000), "NUL bytes"),
        (b"\x01\xff\xfe\x80 \x07\n" * 9, "it is not a state file: line 1"),
    ],
    ids=["fstab", "hosts", "damaged at the end", "zeros", "binary"],
)
def test_a_file_of_something_else_is_refused(lasting: LastingOnes, text: bytes, sentence: str) -> None:
    """The mount fails, and the file stays as it is: its text, its mode and its inode."""
    mount = lasting()
    mount.end()
    mount.root.call(Path.write_bytes, Path(STATE), text)
    before = mount.sh(f"stat -c '%i %a %s %y' {STATE}")
    complaint = _refused_mount(mount, OPTION)
    assert sentence in complaint
    assert STATE in complaint
    assert "Traceback" not in complaint
    assert mount.sh(f"stat -c '%i %a %s %y' {STATE}") == before
    assert mount.root.call(Path.read_bytes, Path(STATE)) == text


def test_a_full_disk_spares_what_was_kept(lasting: LastingOnes) -> None:
    """The log reports the error and commands take effect. The file is updated once there is room."""
    mount = lasting()
    mount.end()
    mount.sh("mkdir /mnt/small && mount -t tmpfs -o size=16k tmpfs /mnt/small")
    mount.again("state=/mnt/small/state")
    mount.ctl("create 3 up")
    before = mount.sh("cat /mnt/small/state")
    assert before == mount.read("ctl") + "\n"
    mount.sh("head -c 100000 /dev/zero >/mnt/small/fill || true")
    mount.ctl("create 4 up description " + "x" * 200)
    assert mount.read("virt4/up") == "1"
    assert mount.sh("cat /mnt/small/state") == before
    until(lambda: "/mnt/small/state" in "".join(mount.log), "the log reports it")
    mount.sh("rm /mnt/small/fill")
    mount.ctl("create 5")
    assert mount.sh("cat /mnt/small/state") == mount.read("ctl") + "\n"
    assert mount.sh("ls /mnt/small") == "state\n", "no temporary file is left"
    mount.end()
    mount.sh("umount /mnt/small")


@pytest.mark.parametrize(
    ("made", "option", "sentence"),
    [
        ("true", "state=/mnt/nowhere/state", "No such file"),
        ("mkfifo /mnt/fifo", "state=/mnt/fifo", "not a regular file"),
        ("truncate -s 17M /mnt/large", "state=/mnt/large", "larger than 16 MiB"),
        ("mkdir /mnt/ro && mount -t tmpfs -o ro tmpfs /mnt/ro", "state=/mnt/ro/state", "Read-only"),
    ],
    ids=["no directory", "a FIFO", "too large", "read-only"],
)
def test_a_file_that_cannot_keep_the_state_is_refused(
    lasting: LastingOnes, made: str, option: str, sentence: str
) -> None:
    """The mount fails rather than lose the state unnoticed."""
    mount = lasting()
    mount.end()
    mount.sh(made)
    complaint = _refused_mount(mount, option)
    assert option.removeprefix("state=") in complaint
    assert sentence in complaint
    assert "Traceback" not in complaint


def test_a_link_is_followed_and_what_lies_in_the_way_is_not(lasting: LastingOnes) -> None:
    """The name of the temporary file beside the state file may be taken by a link, which must not be followed."""
    mount = lasting()
    mount.end()
    mount.sh(
        "mkdir /mnt/real; ln -s real/state /mnt/link; echo precious >/mnt/other; ln -s ../other /mnt/real/state.new"
    )
    mount.again("state=/mnt/link")
    mount.ctl("create 3")
    assert mount.sh("cat /mnt/real/state") == mount.read("ctl") + "\n"
    assert mount.sh("readlink /mnt/link; cat /mnt/other; ls /mnt/real") == "real/state\nprecious\nstate\n"


def test_two_mounts_do_not_share_one(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3")
    before = same(mount)
    mount.sh("mkdir /mnt/second")
    for _ in range(2):  # also after the file has been replaced
        refused = mount.refused(f"{VIRTFS} mount -f -o {OPTION} /mnt/second")
        assert f"the server of another mount (pid {mount.server.pid}) is using it" in refused
        assert same(mount) == before
        mount.ctl("virt3 mtu 1400")
        before = same(mount)


def test_the_other_mount_is_named_on_overlayfs(lasting: LastingOnes) -> None:
    """/proc/locks does not have the inode number that stat(2) shows there."""
    mount = lasting()
    mount.end()
    mount.sh(
        "mkdir /mnt/disks; mount -t tmpfs tmpfs /mnt/disks; cd /mnt/disks; mkdir low up work all; touch low/state"
        "; mkdir /mnt/low; mount -t tmpfs tmpfs /mnt/low; touch /mnt/low/state"
        "; mount -t overlay -o lowerdir=/mnt/low:low,upperdir=up,workdir=work overlay all; mkdir /mnt/second"
    )
    mount.again("state=/mnt/disks/all/state")
    mount.ctl("create 3")
    refused = mount.refused(f"{VIRTFS} mount -f -o state=/mnt/disks/all/state /mnt/second")
    assert f"the server of another mount (pid {mount.server.pid}) is using it" in refused


def test_a_line_that_fails_is_kept_and_tried_again(lasting: LastingOnes) -> None:
    """For instance, a namespace may not exist yet at boot."""
    mount = lasting(OPTION)
    mount.ctl("create 3 up")
    mount.end()
    mount.sh(f"echo 'create 5 netns late inet 10.0.5.1/24 up' >>{STATE}; echo 'virt3 frobnicate 1' >>{STATE}")
    for _ in range(2):
        mount.again(OPTION)
        text = same(mount)
        assert "# not replayed: create 5 netns late inet 10.0.5.1/24 up\n" in text
        assert 'there is no network namespace "late"' in text
        assert "# not replayed: virt3 frobnicate 1" in text
        assert mount.units() == ["virt3"]
        mount.end()
    mount.ip("netns add late")
    mount.again(OPTION)
    assert sorted(mount.units()) == ["virt3", "virt5"]
    assert mount.read("virt5/tap/netns") == "late"
    assert "not replayed: create 5" not in same(mount)
    mount.ctl("virt5 description here")  # the other failed line is about virt3
    assert "frobnicate" in same(mount)


def test_a_newer_command_supersedes_a_line_that_failed(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.end()
    mount.sh(f"echo 'create 5 netns late' >{STATE}")
    mount.again(OPTION)
    assert "not replayed" in same(mount)
    mount.ctl("create 5 description mine")
    assert "not replayed" not in same(mount)


def test_bytes_of_any_locale(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("create 3 description → ü")
    mount.end()
    mount.sh(f"cd /; LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {VIRTFS} mount -o {OPTION} /mnt/virt")
    assert "description → ü" in mount.read("ctl")
    mount.sh("echo virt3 description ← ä >ctl")
    assert mount.sh(f"cat {STATE}") == mount.read("ctl") + "\n"
    mount.sh(f"cd /; {VIRTFS} umount /mnt/virt")


def test_a_directory_is_none(lasting: LastingOnes) -> None:
    """The mount fails rather than lose the state unnoticed."""
    mount = lasting()
    mount.end()
    mount.sh("mkdir /mnt/dir")
    complaint = _refused_mount(mount, "state=/mnt/dir")
    assert "/mnt/dir" in complaint
    assert "Traceback" not in complaint


def _refused_mount(mount: Lasting, options: str) -> str:
    done = subprocess.run(
        mount.command(sys.executable, "-m", "virtfs", "mount", "-f", "-o", options, DIR),
        env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr
