"""wait/*: files whose reads return once a condition holds."""

import errno
import os
import select
import signal
import subprocess

import pytest
from harness.places import finished
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import PATIENCE, until, until_it_waits

IN = select.POLLIN
NAMES = ["up", "down", "carrier", "frame", "reader", "gone"]

# For each condition, the verbs that make a new interface for which it does not hold (see make_so).
NOT_YET: dict[str, str] = {
    "up": "",
    "down": "up",
    "carrier": "up carrier open",
    "frame": "up",
    "reader": "up",
    "gone": "up",
}


def make_so(virt: Virt, name: str) -> None:
    """Make the condition hold."""
    match name:
        case "up" | "down":
            virt.set(name)
        case "carrier":
            virt.set("carrier always")
        case "frame":
            virt.host_sends(frame())
        case "reader":
            virt.open(os.O_RDONLY)
        case "gone":
            virt.mount.ctl(f"destroy {virt.unit}")


def opened(virt: Virt, name: str) -> File:
    """Open a file of wait/ in a new program."""
    return virt.mount.process().open(f"{virt.name}/wait/{name}", os.O_RDONLY)


@pytest.mark.parametrize("name", NAMES)
def test_it_returns_when_it_is_so(virts: Virts, name: str) -> None:
    virt = virts(NOT_YET[name])
    file = opened(virt, name)
    assert file.poll(IN) == 0
    waiting = file.begin_read().waiting()
    make_so(virt, name)
    assert waiting.result() == b"1\n"
    assert file.read() == b""
    assert file.read() == b""


@pytest.mark.parametrize("name", NAMES)
def test_at_once_when_it_is_so_already(virts: Virts, name: str) -> None:
    virt = virts(NOT_YET[name])
    file = opened(virt, name)
    make_so(virt, name)
    if name == "frame":
        until(lambda: file.poll(IN), "the frame has come")
    assert file.begin_read().result() == b"1\n"
    if name not in ("frame", "gone"):
        assert virt.mount.sh(f"cat {virt.name}/wait/{name}") == "1\n"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("script", "output"),
    [("exec cat {file}", "1\n"), ("read -r it <{file}; echo it is $it", "it is 1\n")],
    ids=["cat", "bash"],
)
def test_a_script_waits(virts: Virts, name: str, script: str, output: str) -> None:
    """The read ends, so that the script can continue."""
    virt = virts(NOT_YET[name])
    shell = virt.mount.shell(script.format(file=f"{virt.name}/wait/{name}"), stdout=subprocess.PIPE)
    until_it_waits(shell.pid)
    make_so(virt, name)
    assert finished(shell)[0] == output
    assert shell.returncode == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it(virts: Virts, name: str, number: int) -> None:
    virt = virts(NOT_YET[name])
    cat = virt.mount.shell(f"exec cat {virt.name}/wait/{name}", stdout=subprocess.PIPE)
    until_it_waits(cat.pid)
    cat.send_signal(number)
    assert cat.wait(timeout=PATIENCE) == -number


@pytest.mark.parametrize("end", ["destroy", "link del"])
@pytest.mark.parametrize("name", NAMES)
def test_the_interface_goes(virts: Virts, name: str, end: str) -> None:
    """Reads fail with ENXIO, except those of wait/gone. The kernel sets an interface down before it deletes it
    (net/core/dev.c), which ends a read of wait/down.
    """
    virt = virts(NOT_YET[name])
    file = opened(virt, name)
    waiting = file.begin_read().waiting()
    polling = opened(virt, name).begin_poll(IN)
    if end == "destroy":
        virt.mount.ctl(f"destroy {virt.unit}")
    else:
        virt.mount.ip(f"link del {virt.tap}")
    if name == "gone":
        assert waiting.result() == b"1\n"
        assert file.read() == b""
    elif (name, end) == ("down", "link del"):
        assert waiting.result() == b"1\n"
    else:
        with fails(errno.ENXIO):
            waiting.result()
        with fails(errno.ENXIO):
            file.read()
    assert polling.result()


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_polled(virts: Virts, name: str) -> None:
    virt = virts(NOT_YET[name])
    file = opened(virt, name)
    waiting = file.begin_poll(IN)
    make_so(virt, name)
    assert waiting.result() & IN
    assert file.read() == b"1\n"


@pytest.mark.parametrize("name", NAMES)
def test_without_waiting(virts: Virts, name: str) -> None:
    virt = virts(NOT_YET[name])
    file = virt.mount.process().open(f"{virt.name}/wait/{name}", os.O_RDONLY | os.O_NONBLOCK)
    with fails(errno.EAGAIN):
        file.read()


def test_a_frame_is_waited_for_and_not_taken(virt: Virt) -> None:
    reader = virt.open(os.O_RDONLY)
    waiting = opened(virt, "frame").begin_read().waiting()
    virt.host_sends(frame(77))
    assert waiting.result() == b"1\n"
    assert reader.read() == frame(77)


def test_only_a_frame_after_the_open_counts(virt: Virt) -> None:
    """Without a reader the earlier frame is dropped."""
    virt.host_sends(frame())
    file = opened(virt, "frame")
    assert file.poll(IN, 0.1) == 0
    waiting = file.begin_read().waiting()
    virt.host_sends(frame())
    assert waiting.result() == b"1\n"


def test_a_writer_is_no_reader(virt: Virt) -> None:
    file = opened(virt, "reader")
    virt.open(os.O_WRONLY)
    assert file.poll(IN, 0.1) == 0
    virt.open(os.O_RDONLY)
    assert file.read() == b"1\n"


def test_what_ip_does_counts(virts: Virts) -> None:
    virt = virts("")
    for word in ("up", "down", "up"):
        waiting = opened(virt, word).begin_read()
        virt.mount.ip(f"link set {virt.tap} {word}")
        assert waiting.result() == b"1\n"


def test_a_condition_that_was_so_for_a_moment(virt: Virt) -> None:
    """An open file reports the condition once, even if the condition no longer holds when the rest is read."""
    file = opened(virt, "up")
    assert file.read(1) == b"1"
    virt.set("down")
    assert file.read() == b"\n"
    assert file.read() == b""


def test_a_crowd_waits(virt: Virt, mount: Mount) -> None:
    """The reads of all programs and users are answered, and waiting reads delay no other call."""
    crowd = [mount.process(), mount.process(4001)]
    files = [user.open(f"{virt.name}/wait/down", os.O_RDONLY) for user in crowd for _ in range(100)]
    reads = [file.begin_read() for file in files]
    reads[-1].waiting()
    assert mount.sh("cat version")
    virt.set("down")
    assert {read.result() for read in reads} == {b"1\n"}


def test_a_virt_that_was_destroyed_and_made_again(virt: Virt, mount: Mount) -> None:
    """It is a different interface, to which the old descriptor does not refer."""
    old = opened(virt, "gone")
    new = opened(Virt(mount, 3000), "gone")
    mount.ctl(f"destroy {virt.unit}\ncreate {virt.unit} up")
    assert old.read() == b"1\n"
    assert opened(virt, "gone").poll(IN, 0.1) == 0
    assert new.poll(IN) == 0


def test_a_script_that_waits_for_its_turn(virts: Virts) -> None:
    """The intended use of wait/."""
    virt = virts("")
    script = (
        f"cat {virt.name}/wait/up {virt.name}/wait/reader >/dev/null && "
        f"head -c 60 /dev/zero >{virt.name}/frame && cat {virt.name}/wait/gone"
    )
    shell = virt.mount.shell(script, stdout=subprocess.PIPE)
    virt.set("up")
    file = virt.open(os.O_RDONLY)
    until(lambda: virt.count("tx_frames") == 1, "the script has sent its frame")
    file.close()
    until(lambda: "wait/gone" in virt.read("clients"), "the script waits for the end")
    virt.mount.ctl(f"destroy {virt.unit}")
    assert finished(shell)[0] == "1\n"
