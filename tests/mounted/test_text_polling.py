"""poll(2) on text files: POLLPRI|POLLERR when the text has changed, for whatever reason."""

import os
import select
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from harness import programs
from harness.places import Place
from harness.process import File
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until

PRI = select.POLLPRI
CHANGED = select.POLLPRI | select.POLLERR
QUIET = 0.1  # seconds in which no event must occur

Change = tuple[str, str, Callable[[Virt], object]]  # a text file, its new value, a function that changes it


def by_verb(name: str, value: str, verb: str) -> Change:
    """Return a change made by a verb in the interface's ctl."""
    return name, value, lambda virt: virt.set(verb)


def by_file(name: str, value: str, other: str = "", text: str = "") -> Change:
    """Return a change made by a write of `text` or `value` to the file `other`, or to the file itself."""
    return name, value, lambda virt: virt.write(other or name, f"{text or value}\n")


def by_ip(name: str, value: str, words: str) -> Change:
    """Return a change made with ip(8)."""
    return name, value, lambda virt: virt.mount.ip(words.format(tap=virt.tap))


CHANGES: dict[str, Change] = {
    "mtu by verb": by_verb("mtu", "1400", "mtu 1400"),
    "tap/mtu by the other file": by_file("tap/mtu", "1400", "mtu", "1400"),
    "up by verb": by_verb("up", "0", "down"),
    "tap/up by file": by_file("tap/up", "0", "up", "0"),
    "address": by_file("address", "02:00:00:00:00:09"),
    "tap/address": by_verb("tap/address", "02:00:00:00:00:09", "taplink 02:00:00:00:00:09"),
    "tap/addresses by verb": by_verb("tap/addresses", "10.9.9.1/24", "inet 10.9.9.1/24"),
    "tap/bridge by verb": by_verb("tap/bridge", "br7", "bridge br7"),
    "tap/carrier by verb": by_verb("tap/carrier", "0", "carrier open"),
    "carrier": by_verb("carrier", "open", "carrier open"),
    "queue": by_verb("queue", "9", "queue 9"),
    "backlog": by_file("backlog", "9"),
    "strict": by_file("strict", "1"),
    "exclusive": by_verb("exclusive", "none", "exclusive none"),
    "promisc by verb": by_verb("promisc", "1", "promisc"),
    "antispoof": by_file("antispoof", "1"),
    "persist": by_file("persist", "1"),
    "upopen": by_verb("upopen", "1", "upopen"),
    "description": by_file("description", "a note"),
    "mtu by ip": by_ip("mtu", "1300", "link set {tap} mtu 1300"),
    "up by ip": by_ip("up", "0", "link set {tap} down"),
    "tap/address by ip": by_ip("tap/address", "02:00:00:00:00:08", "link set {tap} address 02:00:00:00:00:08"),
    "tap/addresses by ip": by_ip("tap/addresses", "10.9.9.9/24", "addr add 10.9.9.9/24 dev {tap}"),
    "tap/bridge by ip": by_ip("tap/bridge", "br7", "link set {tap} master br7"),
    "tap/name by ip": by_ip("tap/name", "eth7", "link set {tap} name eth7"),
    "promisc by ip": by_ip("promisc", "1", "link set {tap} promisc on"),
    "queue by ip": by_ip("queue", "77", "link set {tap} txqueuelen 77"),
}


@pytest.fixture
def virt(virts: Virts, mount: Mount) -> Iterator[Virt]:
    """An interface. The host also has a bridge br7, which virtfs did not create."""
    mount.ip("link add br7 type bridge")
    yield virts()
    mount.ip("link del br7")


def read(virt: Virt, name: str) -> File:
    """Open and read a file of the interface, or of the mount's root if the name begins with "/"."""
    path = name.removeprefix("/") if name.startswith("/") else f"{virt.name}/{name}"
    file = virt.mount.process().open(path, os.O_RDONLY)
    file.read()
    return file


def again(file: File) -> str:
    """Read a file again from its start."""
    file.call(os.lseek, 0, os.SEEK_SET)
    return file.read().decode()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_wakes(virt: Virt, change: Change) -> None:
    """A change wakes a poll, and later polls report it until the file is read again."""
    name, value, do = change
    file = read(virt, name)
    waiting = file.begin_poll(PRI)
    do(virt)
    assert waiting.result() & CHANGED == CHANGED
    assert file.poll(PRI) & CHANGED == CHANGED, "reported until the next read"
    assert again(file) == f"{value}\n"
    assert file.poll(PRI, QUIET) == 0
    assert file.poll(select.POLLIN | select.POLLOUT) == select.POLLIN | select.POLLOUT


OF_ALL = ["/ctl", "ctl", "/status.json", "/ifconfig", "/metrics"]


@pytest.mark.parametrize("name", OF_ALL)
@pytest.mark.parametrize("how", ["verb", "ip"])
def test_what_tells_of_all_wakes(virt: Virt, name: str, how: str) -> None:
    file = read(virt, name)
    waiting = file.begin_poll(PRI)
    virt.set("mtu 1312") if how == "verb" else virt.mount.ip(f"link set {virt.tap} mtu 1312")
    assert waiting.result() & CHANGED == CHANGED
    assert "1312" in again(file)


def test_ctl_wakes_for_comers_and_goers(virt: Virt) -> None:
    for line in ("create 800", "destroy 800", "create bridge0", "destroy bridge0"):
        file = read(virt, "/ctl")
        waiting = file.begin_poll(PRI)
        virt.mount.ctl(line)
        assert waiting.result() & PRI, line


def test_chmod_and_chown_wake(virt: Virt) -> None:
    for script in (f"chmod 640 {virt.name}/frame", f"chown 4001:4002 {virt.name}/frame"):
        file = read(virt, "ctl")
        waiting = file.begin_poll(PRI)
        virt.mount.sh(script)
        assert waiting.result() & PRI, script


def test_last_error_wakes_for_his_own(virt: Virt, mount: Mount) -> None:
    file = read(virt, "/last_error")
    waiting = file.begin_poll(PRI)
    with pytest.raises(OSError, match=r"\[Errno"):
        mount.ctl("destroy 999")
    assert waiting.result() & PRI
    assert "destroy 999" in again(file)


def test_clients_wakes(virt: Virt) -> None:
    file = read(virt, "clients")
    waiting = file.begin_poll(PRI)
    frames = virt.open()
    assert waiting.result() & PRI
    assert "frame" in again(file)
    waiting = file.begin_poll(PRI)
    frames.close()
    assert waiting.result() & PRI


def test_counters_tell_that_they_changed(virt: Virt) -> None:
    """A new poll(2) reports the change. Frames are too frequent to wake pollers for each of them."""
    file = read(virt, "stats/tx_frames")
    assert file.poll(PRI) == 0
    virt.open(os.O_WRONLY).write(frame())
    assert file.poll(PRI) & CHANGED == CHANGED
    assert again(file) == "1\n"


def test_nothing_wakes_for_what_stays(virt: Virt, virts: Virts) -> None:
    """Neither setting the same value again nor a change of another value or interface wakes a poll."""
    other = virts()
    file = read(virt, "mtu")
    waiting = file.begin_poll(PRI, 0.5)
    virt.set("mtu 1500 strict")
    other.set("mtu 1400")
    virt.mount.ip(f"link set {virt.tap} mtu 1500")
    virt.mount.ip(f"addr add 10.9.9.9/24 dev {virt.tap}")
    assert waiting.result() == 0


def test_before_the_first_read_nothing_has_changed(virt: Virt) -> None:
    file = virt.mount.process().open(f"{virt.name}/mtu", os.O_RDONLY)
    virt.set("mtu 1400")
    assert file.poll(PRI) == 0
    assert file.read() == b"1400\n"


def test_there_and_back_again_is_no_change(virt: Virt) -> None:
    """The text is again the one that was read."""
    file = read(virt, "mtu")
    virt.set("mtu 1400")
    virt.set("mtu 1500")
    assert file.poll(PRI) == 0


def test_everybody_who_polls_wakes(virt: Virt, mount: Mount) -> None:
    programs_ = [mount.process(), mount.process(4001)]
    files = [program.open(f"{virt.name}/mtu", os.O_RDONLY) for program in programs_ for _ in range(20)]
    for file in files:
        file.read()
    waiting = [file.begin_poll(PRI) for file in files]
    virt.set("mtu 1400")
    assert all(one.result() & PRI for one in waiting)


def test_epoll(virt: Virt) -> None:
    """Edge-triggered, as an event loop watches sysfs."""
    file = read(virt, "mtu")
    epoll = file.call(programs.epoll_on, select.EPOLLPRI | select.EPOLLET)
    for mtu in (1400, 1401, 1402):
        virt.set(f"mtu {mtu}")
        assert file.process.call(programs.epoll_wait, epoll, 2.0) & select.EPOLLPRI
        assert again(file) == f"{mtu}\n"
        assert file.process.call(programs.epoll_wait, epoll, QUIET) == 0


def test_of_one_that_is_destroyed(virt: Virt) -> None:
    """Pollers are woken and find the interface gone."""
    file = read(virt, "tap/up")
    waiting = file.begin_poll(PRI)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert waiting.result() & CHANGED


def test_of_one_whose_tap_is_deleted(virt: Virt) -> None:
    file = read(virt, "up")
    waiting = file.begin_poll(PRI)
    virt.mount.ip(f"link del {virt.tap}")
    assert waiting.result() & CHANGED == CHANGED
    assert again(file) == "0\n"


def test_in_another_namespace(virt: Virt, places: Callable[[], Place]) -> None:
    place = places()
    file = read(virt, "tap/netns")
    waiting = file.begin_poll(PRI)
    virt.set(f"netns {place.pid}")
    assert waiting.result() & PRI
    assert again(file) == f"{place.pid}\n"
    for words, name, value in (("mtu 1300", "mtu", "1300"), ("down", "up", "0"), ("name far", "tap/name", "far")):
        file = read(virt, name)
        waiting = file.begin_poll(PRI)
        place.ip(f"link set {virt.tap} {words}")
        assert waiting.result() & PRI, name
        until(partial(_is, virt, name, value), name)


def _is(virt: Virt, name: str, value: str) -> bool:
    return virt.read(name) == value


@pytest.mark.parametrize("name", ["status.json", "metrics"])
def test_a_read_does_not_change_the_memory_that_it_shows(virt: Virt, name: str) -> None:
    """Each read changes the numbers of memory. A program that reads and polls must not spin."""
    first, other = (virt.mount.root.open(name, os.O_RDONLY) for _ in range(2))
    assert b"memory" in first.read(1 << 20)
    assert first.poll(PRI) == 0
    other.read(1 << 20)
    assert first.poll(PRI) == 0
