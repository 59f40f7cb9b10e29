"""events: one line for each event, for every reader."""

import errno
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from harness.places import Place, finished
from harness.process import Process
from harness.serving import Mount, Virt, frame
from harness.waiting import PATIENCE, until, until_it_waits

from virtfs.files.events import AT_ONCE

LINE = re.compile(r"(\d+\.\d{6}) ([a-z]+) ([a-z]+\d+)((?: [a-z]+=\S*)*)\n")
KEPT = 4096  # number of lines kept for a reader that does not read
FLOOD = 20  # number of frames that floods() sends


class Told(NamedTuple):
    """One event: its type, the interface, and the keys with their values."""

    what: str
    name: str
    keys: dict[str, str]


class Listener:
    """A reader of events that reads `size` bytes at a time."""

    def __init__(self, mount: Mount, size: int = 65536, process: Process | None = None) -> None:
        self.file = (process or mount.process()).open("events", os.O_RDONLY)
        self._size = size
        self._rest = ""

    def line(self) -> str:
        """Wait for the next line and return it."""
        while "\n" not in self._rest:
            self._rest += self.file.read(self._size).decode()
        line, _, self._rest = self._rest.partition("\n")
        return f"{line}\n"

    def next(self) -> Told:
        """Wait for the next event and return it."""
        line = self.line()
        match = LINE.fullmatch(line)
        assert match, line
        assert abs(float(match[1]) - time.time()) < PATIENCE
        return Told(match[2], match[3], dict(pair.split("=", 1) for pair in match[4].split()))

    def until(self, what: str, name: str) -> list[Told]:
        """Return the events up to and including one of this type and interface."""
        heard = [self.next()]
        while heard[-1][:2] != (what, name):
            heard.append(self.next())
        return heard

    def silent(self) -> bool:
        """Return whether there is nothing to read."""
        return not self._rest and self.file.poll(select.POLLIN) == 0


def floods(host: Place, virt: Virt) -> None:
    """Send FLOOD frames from the host, which has no other reason to send any. They are in the tap on return."""
    host.ip(f"address add 10.80.0.1/24 dev {virt.tap}")
    host.ip(f"neighbour add 10.80.0.2 lladdr 02:00:00:00:00:09 dev {virt.tap}")
    host.sh(f"for n in {{1..{FLOOD}}}; do echo $n >/dev/udp/10.80.0.2/9; done")


def test_cables(mount: Mount) -> None:
    mount.ctl("create 3\ncreate 4")
    listener = Listener(mount)
    mount.ctl("cable 3 4 delay 1ms")
    assert listener.next() == Told("cable", "virt3", {"peer": "virt4"})
    mount.ctl("uncable 4")
    assert listener.next() == Told("uncable", "virt3", {"peer": "virt4"})
    mount.ctl("cable 3 unix-listen:/tmp/cable")
    assert listener.next() == Told("cable", "virt3", {"peer": "unix-listen:/tmp/cable"})
    mount.ctl("destroy 3")
    assert Told("uncable", "virt3", {"peer": "unix-listen:/tmp/cable"}) in listener.until("destroy", "virt3")


def test_a_life(mount: Mount) -> None:
    listener = Listener(mount)
    mount.ctl("create 3")
    assert listener.next() == Told("create", "virt3", {})
    mount.ctl("virt3 up")
    assert listener.next() == Told("up", "virt3", {})
    mount.ctl("virt3 mtu 1400 queue 9 description a note")
    assert listener.next() == Told("mtu", "virt3", {"mtu": "1400"})
    mount.ctl("virt3 down")
    assert listener.next() == Told("down", "virt3", {})
    mount.ctl("virt3 down mtu 1400")  # changes nothing
    mount.ctl("destroy 3")
    assert listener.next() == Told("destroy", "virt3", {})
    assert listener.silent()


@pytest.mark.parametrize("command", ["create", "ensure"])
def test_an_interface_made_in_another_namespace_comes_up_once(
    mount: Mount, places: Callable[[], Place], command: str
) -> None:
    """A watcher would take `up`, `down`, `up` for a flapping link."""
    listener, place = Listener(mount), places()
    mount.ctl(f"{command} 3 mtu 1400 up inet 10.0.3.1/24 netns {place.pid}")
    assert [told.what for told in listener.until("up", "virt3")] == ["create", "mtu", "up"]
    assert "10.0.3.1/24" in place.ip("address show tap3")
    mount.ctl("destroy 3")
    assert listener.next() == Told("destroy", "virt3", {}), "neither down nor up came in between"


def test_nothing_from_before_the_open(mount: Mount) -> None:
    mount.ctl("create 3\nvirt3 mtu 1400")
    listener = Listener(mount)
    assert listener.silent()
    mount.ctl("destroy 3")
    assert listener.next().what == "destroy"


def test_opens_and_closes(virt: Virt) -> None:
    listener = Listener(virt.mount)
    for uid, name in ((0, "frame"), (0, "wait/gone"), (4001, "wait/up")):
        holder = virt.mount.shell(f"exec 3<{virt.name}/{name}; read it", uid=uid, stdin=subprocess.PIPE)
        keys = {"file": name, "uid": str(uid), "pid": str(holder.pid)}
        assert listener.next() == Told("open", virt.name, keys)
        holder.kill()
        assert listener.next() == Told("close", virt.name, keys)
        finished(holder)
    assert listener.silent()


def test_the_pid_of_a_program_with_threads(virt: Virt) -> None:
    """It is the ID of the process, whichever of its threads opens the file."""
    listener = Listener(virt.mount)
    program = virt.mount.process()
    virt.open(os.O_RDONLY, program)
    assert listener.next().keys["pid"] == str(program.pid)
    assert virt.read("clients").splitlines()[1].split()[0] == str(program.pid)


BY_IP = [
    ("link set {tap} mtu 1300", Told("mtu", "", {"mtu": "1300"})),
    ("link set {tap} down", Told("down", "", {})),
    ("link set {tap} master br7", Told("bridge", "", {"bridge": "br7"})),
    ("link del {tap}", Told("lost", "", {})),
]


@pytest.mark.parametrize(("words", "expected"), BY_IP, ids=[words for words, _ in BY_IP])
def test_what_others_do(virt: Virt, words: str, expected: Told) -> None:
    virt.mount.ip("link add br7 type bridge")
    listener = Listener(virt.mount)
    virt.mount.ip(words.format(tap=virt.tap))
    heard = listener.until(expected.what, virt.name)
    assert heard[-1].keys == expected.keys
    assert [event.what for event in heard].count(expected.what) == 1
    virt.mount.ip("link del br7")


def test_into_a_bridge_and_out(virt: Virt) -> None:
    mount = virt.mount
    listener = Listener(mount)
    mount.ctl("create bridge0")
    assert listener.until("create", "bridge0")
    virt.set("bridge bridge0")
    assert listener.until("bridge", virt.name)[-1].keys == {"bridge": "bridge0"}
    virt.set("-bridge")
    assert listener.until("bridge", virt.name)[-1].keys == {"bridge": ""}
    mount.ctl("destroy bridge0")
    assert listener.until("destroy", "bridge0")


def test_carrier(virt: Virt) -> None:
    listener = Listener(virt.mount)
    virt.set("carrier open")
    assert listener.until("carrier", virt.name)[-1].keys == {"carrier": "0"}
    virt.open()
    assert listener.until("carrier", virt.name)[-1].keys == {"carrier": "1"}


def test_drops(virt: Virt) -> None:
    """Frames in the queue are dropped when the interface is set down, and when the reader closes."""
    file = virt.open()
    listener = Listener(virt.mount)
    virt.host_sends(*(frame(60, number) for number in range(5)))
    until(lambda: virt.read("next") == "60", "the frames have come")
    virt.set("down")
    assert listener.until("drop", virt.name)[-1].keys == {"frames": "5"}
    virt.set("up")
    listener.until("up", virt.name)
    virt.host_sends(frame(), frame())
    until(lambda: virt.read("next") == "60", "the frames have come")
    file.close()
    assert listener.until("drop", virt.name)[-1].keys == {"frames": "2"}


def test_drops_are_told_before_the_end(virt: Virt) -> None:
    """Those of the last second are told before `destroy`. Later they would seem to be of a new interface."""
    virt.open()
    listener = Listener(virt.mount)
    for number in (1, 4):
        virt.host_sends(*(frame(60) for _ in range(number)))
        until(lambda: virt.read("next") == "60", "the frames have come")
        virt.set("down up")
    virt.mount.ctl(f"destroy {virt.unit}")
    heard = listener.until("destroy", virt.name)
    assert [told.keys["frames"] for told in heard if told.what == "drop"] == ["1", "4"]


def told_drops(listener: Listener, name: str, total: int) -> int:
    """Wait for lines `drop` of an interface until they report `total` frames. Return how many they report."""
    frames = 0
    while frames < total:
        frames += int(listener.until("drop", name)[-1].keys["frames"])
    return frames


READERS = pytest.mark.parametrize("read", [False, True], ids=["nobody has frame open", "a reader that does not read"])


@READERS
@pytest.mark.parametrize("away", [False, True], ids=["at home", "in another namespace"])
def test_drops_of_a_full_queue_are_told_by_themselves(virt: Virt, elsewhere: Place, read: bool, away: bool) -> None:
    """No program reads a counter or opens `frame`, which would make the server look."""
    host: Place = virt.mount
    if away:
        elsewhere.sh("echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")  # which would send frames of its own
        virt.mount.ip(f"link set {virt.tap} netns {elsewhere.pid}")
        elsewhere.ip(f"link set {virt.tap} up")
        host = elsewhere
    virt.set("queue 4")
    listener = Listener(virt.mount)
    if read:
        virt.open()
    floods(host, virt)
    assert told_drops(listener, virt.name, FLOOD - 4 * read) == FLOOD - 4 * read


@READERS
@pytest.mark.parametrize("command", ["destroy {unit}", "destroy all"])
def test_all_drops_are_told_before_the_end(virt: Virt, read: bool, command: str) -> None:
    """Those that the kernel counts, and the frames that still wait when the interface ends."""
    virt.set("queue 4")
    listener = Listener(virt.mount)
    if read:
        virt.open()
    floods(virt.mount, virt)
    virt.mount.ctl(command.format(unit=virt.unit))
    heard = listener.until("destroy", virt.name)
    assert sum(int(told.keys["frames"]) for told in heard if told.what == "drop") == FLOOD


def test_destroyed_while_open(virt: Virt) -> None:
    file = virt.open()
    listener = Listener(virt.mount)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert listener.next() == Told("destroy", virt.name, {})
    file.close()
    assert listener.next().what == "close"


def test_a_clone(mount: Mount) -> None:
    listener = Listener(mount)
    file = mount.process().open("clone", os.O_RDWR)
    assert listener.until("create", "virt0")
    file.close()
    assert listener.until("destroy", "virt0")


def test_a_line_that_was_taken_back_tells_what_was(mount: Mount) -> None:
    """A reader that follows only the events ends with the right state."""
    listener = Listener(mount)
    with pytest.raises(OSError, match=r"\[Errno"):
        mount.ctl("create 3 up mtu 1400 bridge nosuch")
    heard = listener.until("destroy", "virt3")
    assert heard[0] == Told("create", "virt3", {})


def test_every_reader_gets_all(mount: Mount) -> None:
    """All readers get the same events, whatever the size of their reads and their user."""
    everybody = mount.process(4001)
    listeners = [Listener(mount), Listener(mount, 1), Listener(mount, 7), Listener(mount, 65536, everybody)]
    for _ in range(2):
        mount.ctl("create 3 up\nvirt3 mtu 1400\ndestroy 3")
    mount.ctl("create 4\ndestroy 4")
    heard = [[str(event) for event in listener.until("destroy", "virt4")] for listener in listeners]
    assert len(heard[0]) >= 2 * 4 + 2
    assert all(one == heard[0] for one in heard[1:])


def test_bash_reads_lines(mount: Mount) -> None:
    """bash reads one byte at a time."""
    script = "exec 3<events; echo ready; while read -r when what name rest <&3; do echo $what $name $rest; done"
    shell = mount.shell(script, stdout=subprocess.PIPE)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "ready\n"
    mount.ctl("create 3\nvirt3 mtu 1400\ndestroy 3")
    lines = [shell.stdout.readline() for _ in range(3)]
    assert lines == ["create virt3\n", "mtu virt3 mtu=1400\n", "destroy virt3\n"]
    shell.kill()
    finished(shell)


def test_poll_wakes(virt: Virt) -> None:
    listener = Listener(virt.mount)
    for mtu in (1400, 1300):
        waiting = listener.file.begin_poll(select.POLLIN)
        virt.set(f"mtu {mtu}")
        assert waiting.result() == select.POLLIN
        assert listener.next().keys == {"mtu": str(mtu)}
        assert listener.silent()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_who_waits(mount: Mount, number: int) -> None:
    reader = mount.shell("exec cat events", stdout=subprocess.PIPE)
    until_it_waits(reader.pid)
    reader.send_signal(number)
    assert reader.wait(timeout=PATIENCE) == -number


def test_without_waiting(mount: Mount) -> None:
    file = mount.process().open("events", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        file.read()
    mount.ctl("create 3")
    assert file.read().decode().endswith(" create virt3\n")


@pytest.mark.timeout(150)
def test_one_who_does_not_read_is_told_what_he_missed(virt: Virt) -> None:
    """A slow reader learns how many events it missed. It does not delay another reader, which gets them all."""
    mount = virt.mount
    slow = Listener(mount)
    quick = mount.shell("exec cat events", stdout=subprocess.PIPE)
    until_it_waits(quick.pid)
    opens = 2100
    mount.sh(f"cd {virt.name}/wait; for ((i = 0; i < {opens}; i++)); do : <up; done", seconds=100)
    until(lambda: len(virt.read("clients").splitlines()) == 1, "the last file is closed")
    mount.ctl(f"destroy {virt.unit}")
    missed = re.fullmatch(r"\d+\.\d{6} lost (\d+)\n", slow.line())
    assert missed
    assert int(missed[1]) == 2 * opens + 1 - KEPT
    lines = [slow.line() for _ in range(KEPT)]
    assert all(LINE.fullmatch(line) for line in lines)
    assert slow.silent()
    mount.ctl("create 900\ndestroy 900")
    assert [slow.next().what, slow.next().what] == ["create", "destroy"]
    assert quick.stdout is not None
    heard = [quick.stdout.readline() for _ in range(2 * opens + 3)]
    assert all(LINE.fullmatch(line) for line in heard)
    assert heard[-1].endswith("destroy virt900\n")
    quick.kill()
    finished(quick)


def test_in_another_namespace(virt: Virt, places: Callable[[], Place]) -> None:
    place = places()
    virt.set(f"netns {place.pid}")
    listener = Listener(virt.mount)
    place.ip(f"link set {virt.tap} mtu 1300")
    assert listener.until("mtu", virt.name)[-1].keys == {"mtu": "1300"}
    place.ip(f"link del {virt.tap}")
    assert listener.until("lost", virt.name)


def test_the_mount_ends(alone: Callable[..., Mount]) -> None:
    """Readers get the last lines, then the end of the file, and no error."""
    mount = alone()
    mount.ctl("\n".join(f"create {unit}" for unit in range(3, 20)))
    reader = mount.shell("exec cat events", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_it_waits(reader.pid)
    assert mount.end() == 0
    output, said = finished(reader)
    assert (reader.returncode, said) == (0, "")
    ended = re.findall(r" destroy virt([0-9]+)", output)  # in any order: they end concurrently
    assert sorted(map(int, ended)) == list(range(3, 20))


def test_the_server_is_killed(alone: Callable[..., Mount]) -> None:
    mount = alone()
    reader = mount.shell("exec cat events", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_it_waits(reader.pid)
    mount.broken = True
    mount.server.kill()
    assert os.strerror(errno.ECONNABORTED) in finished(reader)[1]


def test_more_readers_than_are_woken_at_once(mount: Mount) -> None:
    """Each of many waiting readers gets the event, also one that comes while they are woken."""
    files = [mount.root.open("events", os.O_RDONLY) for _ in range(2 * AT_ONCE + 3)]
    waiting = [file.begin_read(4096) for file in files]
    for read in waiting:
        read.waiting()
    mount.ctl("create 900\ndestroy 900")
    for file, read in zip(files, waiting, strict=True):
        text = read.result()
        while b"destroy virt900" not in text:
            text += file.read(4096)
        assert b"create virt900" in text
