"""poll, select and epoll on frame and on text files."""

import errno
import os
import select
from collections.abc import Callable

import pytest
from harness import programs
from harness.process import File, fails
from harness.serving import Mount, Virt, frame
from harness.waiting import PATIENCE

IN, OUT, PRI, ERR, HUP = select.POLLIN, select.POLLOUT, select.POLLPRI, select.POLLERR, select.POLLHUP
GO = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET  # used by Go's runtime (netpoll_epoll.go)
QUIET = 0.2  # seconds in which no event must occur


def watch(file: File, events: int) -> Callable[[float], int]:
    """Add a file to a new epoll. Returns a function that waits for events, at most for the given seconds."""
    epoll = file.call(programs.epoll_on, events)
    return lambda seconds: file.process.call(programs.epoll_wait, epoll, seconds)


def test_poll(virt: Virt) -> None:
    file = virt.open()
    assert file.poll() == OUT
    virt.host_sends(frame())
    assert file.poll() == IN | OUT
    assert file.poll() == IN | OUT
    file.read()
    assert file.poll() == OUT
    virt.set("down")
    assert file.poll(OUT) == OUT | ERR
    assert file.poll() == IN | OUT | ERR
    virt.set("up")
    assert file.poll() == OUT


@pytest.mark.parametrize("name", ["frame", "hex", "stream"])
@pytest.mark.parametrize(("flags", "way"), [(os.O_RDONLY, IN), (os.O_WRONLY, OUT)])
def test_a_descriptor_of_one_direction_is_told_of_that(virt: Virt, name: str, flags: int, way: int) -> None:
    file = virt.mount.root.open(f"{virt.name}/{name}", flags)
    assert file.poll() == way & OUT
    virt.host_sends(frame())
    assert file.poll() == way
    virt.set("down")
    assert file.poll() == (OUT if way == OUT else IN | ERR)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert file.poll() == way | ERR | HUP


@pytest.mark.parametrize("name", ["frame", "hex", "stream"])
@pytest.mark.parametrize("by", ["host", "ctl"])
def test_a_waiting_poll_hears_of_down(virt: Virt, name: str, by: str) -> None:
    """A waiting poll returns when the interface is set down, as a waiting read does."""
    file = virt.mount.root.open(f"{virt.name}/{name}", os.O_RDONLY)
    for _ in range(2):
        polling, reading = file.begin_poll(IN), file.begin_read().waiting()
        virt.mount.ip(f"link set {virt.tap} down") if by == "host" else virt.set("down")
        assert polling.result() == IN | ERR
        with fails(errno.EHOSTDOWN):
            reading.result()
        assert file.poll(IN) == IN | ERR
        virt.mount.ip(f"link set {virt.tap} up")
        virt.until("up", "1")


@pytest.mark.parametrize("events", [GO, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET])
def test_epoll_by_edge_hears_of_down_and_up(virt: Virt, events: int) -> None:
    wait = watch(virt.open(os.O_RDWR | os.O_NONBLOCK), events)
    assert wait(PATIENCE) == select.EPOLLOUT
    for _ in range(3):
        virt.mount.ip(f"link set {virt.tap} down")
        assert wait(PATIENCE) == select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR
        assert wait(QUIET) == 0
        virt.mount.ip(f"link set {virt.tap} up")
        assert wait(PATIENCE) == select.EPOLLOUT
        assert wait(QUIET) == 0
    virt.host_sends(frame())
    assert wait(PATIENCE) == select.EPOLLIN | select.EPOLLOUT
    virt.mount.ip(f"link del {virt.tap}")
    assert wait(PATIENCE) & (select.EPOLLERR | select.EPOLLHUP) == select.EPOLLERR | select.EPOLLHUP


def test_epoll_by_level_hears_of_down(virt: Virt) -> None:
    wait = watch(virt.open(os.O_RDONLY), select.EPOLLIN)
    assert wait(0) == 0
    virt.set("down")
    assert wait(PATIENCE) == wait(PATIENCE) == select.EPOLLIN | select.EPOLLERR
    virt.set("up")
    assert wait(QUIET) == 0


def test_select_hears_of_down(virt: Virt) -> None:
    file = virt.open(os.O_RDONLY)
    selecting = file.process.begin(programs.selected, file.fd, 5.0)
    virt.set("down")
    assert selecting.result()


def test_asyncio_hears_of_down(virt: Virt) -> None:
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    reading = file.process.begin(programs.asyncio_reads, file.fd)
    virt.host_sends(frame())
    virt.until("stats/rx_frames", "1")
    virt.set("down")
    assert reading.result() == ([frame()], errno.EHOSTDOWN)


def test_a_waiting_poll_wakes(virt: Virt) -> None:
    file = virt.open()
    for number in range(5):
        waiting = file.begin_poll(IN)
        virt.host_sends(frame(60, number))
        assert waiting.result() == IN
        assert file.read() == frame(60, number)
        assert file.poll(IN, QUIET / 4) == 0


def test_a_poll_sees_the_end(virt: Virt) -> None:
    file = virt.open()
    waiting = file.begin_poll(IN)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert waiting.result() & (ERR | select.POLLHUP) == ERR | select.POLLHUP


def test_select(virt: Virt) -> None:
    file = virt.open()
    assert file.call(programs.select_on, 0.0) == (False, True)
    virt.host_sends(frame())
    assert file.call(programs.select_on, 2.0) == (True, True)


def test_epoll_by_level(virt: Virt) -> None:
    file = virt.open()
    wait = watch(file, select.EPOLLIN)
    assert wait(0) == 0
    virt.host_sends(frame(60, 1), frame(60, 2))
    assert wait(PATIENCE) == wait(PATIENCE) == select.EPOLLIN
    file.read()
    assert wait(PATIENCE) == select.EPOLLIN
    file.read()
    assert wait(QUIET) == 0
    virt.host_sends(frame(60, 3))
    assert wait(PATIENCE) == select.EPOLLIN


def test_epoll_by_edge(virt: Virt) -> None:
    """Each arrival is one event, also while an earlier frame is unread. Nothing else is an event."""
    file = virt.open()
    wait = watch(file, select.EPOLLIN | select.EPOLLET)
    assert wait(0) == 0
    for number in range(3):
        virt.host_sends(frame(60, number))
        assert wait(PATIENCE) == select.EPOLLIN
        assert wait(QUIET) == 0
    assert file.read() == frame(60, 0)
    assert wait(QUIET) == 0
    virt.host_sends(frame(60, 9))
    assert wait(PATIENCE) == select.EPOLLIN


def test_epoll_by_edge_after_emptying(virt: Virt) -> None:
    """An event loop reads until EAGAIN after each event."""
    file = virt.open(os.O_RDWR | os.O_NONBLOCK)
    wait = watch(file, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    assert wait(PATIENCE) == select.EPOLLOUT
    for number in range(20):
        virt.host_sends(frame(60, number), frame(61, number))
        taken: list[bytes] = []
        while len(taken) < 2:
            assert wait(PATIENCE) & select.EPOLLIN
            try:
                while True:
                    taken.append(file.read())
            except BlockingIOError:
                pass
        assert taken == [frame(60, number), frame(61, number)]


@pytest.mark.parametrize("flags", [select.EPOLLIN | select.EPOLLET, select.EPOLLIN | select.EPOLLONESHOT])
def test_an_unread_frame_lets_nobody_spin(virt: Virt, flags: int) -> None:
    """Neither the program nor the server is busy while a frame stays unread."""
    program = virt.mount.process()
    file = virt.open(os.O_RDONLY, program)
    wait = watch(file, flags)
    virt.host_sends(frame())
    assert wait(PATIENCE) == select.EPOLLIN
    server = virt.mount.server.pid
    before = program.call(programs.processor_seconds), _processor_seconds(server)
    assert wait(0.9) == 0
    assert program.call(programs.processor_seconds) - before[0] < 0.1
    assert _processor_seconds(server) - before[1] < 0.2


def test_polling_a_text_then_a_frame(virt: Virt) -> None:
    """A kernel that gets ENOSYS for one poll treats every file of the mount as always ready."""
    root = virt.mount.root
    for name in ("ctl", "help", "version", "last_error", f"{virt.name}/mtu", f"{virt.name}/stats/rx_frames"):
        assert root.open(name, os.O_RDONLY).poll() & IN, name
    file = virt.open()
    assert file.poll() == OUT
    waiting = file.begin_poll(IN)
    virt.host_sends(frame())
    assert waiting.result() == IN


CHANGES = [
    ("mtu", "1400", lambda virt: virt.set("mtu 1400")),
    ("up", "0", lambda virt: virt.write("up", "0\n")),
    ("description", "a note", lambda virt: virt.set("description a note")),
    ("tap/mtu", "1300", lambda virt: virt.mount.ip(f"link set {virt.tap} mtu 1300")),
    ("tap/name", "renamed", lambda virt: virt.mount.ip(f"link set {virt.tap} name renamed")),
    ("tap/addresses", "10.9.9.9/24", lambda virt: virt.mount.ip(f"addr add 10.9.9.9/24 dev {virt.tap}")),
]


@pytest.mark.parametrize(("name", "value", "change"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_a_text_that_changes_wakes(virt: Virt, name: str, value: str, change: Callable[[Virt], object]) -> None:
    """As on sysfs, poll reports POLLPRI|POLLERR until the file is read again from its start."""
    file = virt.mount.process().open(f"{virt.name}/{name}", os.O_RDONLY)
    file.read()
    assert file.poll(PRI) == 0
    waiting = file.begin_poll(PRI)
    change(virt)
    assert waiting.result() & (PRI | ERR) == PRI | ERR
    file.call(os.lseek, 0, os.SEEK_SET)
    assert file.read() == f"{value}\n".encode()
    assert file.poll(PRI, QUIET / 4) == 0


def test_the_state_that_changes_wakes(virt: Virt, mount: Mount) -> None:
    """A program that polls ctl can follow the whole mount."""
    file = mount.process().open("ctl", os.O_RDONLY)
    assert virt.name.removeprefix("virt") in file.read().decode()
    waiting = file.begin_poll(PRI)
    mount.ctl(f"destroy {virt.unit}")
    assert waiting.result() & PRI
    file.call(os.lseek, 0, os.SEEK_SET)
    assert file.read() == b""


def _processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
