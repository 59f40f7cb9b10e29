"""upopen and carrier: what opening and closing frame does to the host's end."""

import errno
import os
import signal
import subprocess

from harness import told
from harness.places import finished
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until, until_it_waits


def carrier(virt: Virt) -> bool:
    """Return the carrier of a tap that is up, after comparing ip(8) with tap/carrier."""
    row = told.link(virt.mount, virt.tap)
    assert ("LOWER_UP" in row["flags"]) != ("NO-CARRIER" in row["flags"])
    assert (row["operstate"] == "DOWN") == ("NO-CARRIER" in row["flags"])
    assert virt.read("tap/carrier") == str(int("LOWER_UP" in row["flags"]))
    return "LOWER_UP" in row["flags"]


def up(virt: Virt) -> bool:
    """Return whether the interface is up, after comparing ip(8) with `up` and tap/up."""
    is_up = "UP" in told.flags(virt.mount, virt.tap)
    assert virt.read("up") == virt.read("tap/up") == str(int(is_up))
    return is_up


def loses_carrier(virt: Virt) -> None:
    """Wait until the carrier is lost after a close. close(2) does not wait for that."""
    until(lambda: virt.read("tap/carrier") == "0", "the carrier is lost")
    assert not carrier(virt)


def comes_down(virt: Virt) -> None:
    """Wait until the interface is down after a close. close(2) does not wait for that."""
    until(lambda: virt.read("up") == virt.read("tap/up") == "0", "the interface is down")
    assert not up(virt)


def test_carrier_while_frame_is_open(virt: Virt) -> None:
    assert carrier(virt)
    virt.set("carrier open")
    assert (virt.read("carrier"), carrier(virt)) == ("open", False)
    first = virt.open(os.O_WRONLY)
    assert carrier(virt)
    second = virt.open(os.O_RDONLY)
    first.close()
    assert carrier(virt)
    second.close()
    loses_carrier(virt)
    virt.write("carrier", "always\n")
    assert carrier(virt)


def test_a_new_interface_with_carrier_open(virts: Virts) -> None:
    virt = virts("up carrier open")
    assert not carrier(virt)
    assert "carrier open" in virt.read("ctl")
    file = virt.open()
    virt.host_sends(frame())
    assert file.read() == frame()
    virt.set("carrier always")
    file.close()
    assert carrier(virt)


def test_carrier_open_while_it_is_open(virt: Virt) -> None:
    file = virt.open()
    virt.set("carrier open")
    assert carrier(virt)
    file.close()
    loses_carrier(virt)


def test_the_routing_follows_the_carrier(virt: Virt) -> None:
    """Without carrier the host knows that there is no peer."""
    virt.set("inet 10.70.0.1/24 carrier open")
    route = "route show 10.70.0.0/24"
    assert "linkdown" in virt.mount.ip(route)
    virt.open()
    assert "linkdown" not in virt.mount.ip(route)


def test_upopen(virts: Virts) -> None:
    virt = virts("upopen")
    assert (virt.read("upopen"), up(virt)) == ("1", False)
    file = virt.open()
    assert up(virt)
    waiting = file.begin_read().waiting()
    virt.host_sends(frame())
    assert waiting.result() == frame()
    writer = virt.open(os.O_WRONLY)
    file.close()
    assert up(virt)
    writer.write(frame(61))
    assert virt.host_gets() == frame(61)
    writer.close()
    comes_down(virt)
    assert "upopen" in virt.read("ctl").split()
    assert "up" not in virt.read("ctl").split()
    virt.write("upopen", "0\n")
    virt.open().close()
    assert not up(virt)


def test_upopen_lets_the_first_read_wait(virts: Virts, mount: Mount) -> None:
    """The read does not fail with EHOSTDOWN, because the interface is up before open(2) returns."""
    virt = virts("upopen")
    for _ in range(10):
        file = virt.open(os.O_RDONLY | os.O_NONBLOCK, mount.root)
        with fails(errno.EAGAIN):
            file.read()
        file.close()


def test_a_killed_program_sets_it_down(virts: Virts) -> None:
    virt = virts("upopen carrier open")
    reader = virt.mount.shell(f"exec cat {virt.name}/frame", stdout=subprocess.PIPE)
    until_it_waits(reader.pid)
    assert up(virt)
    assert carrier(virt)
    reader.send_signal(signal.SIGKILL)
    finished(reader)
    comes_down(virt)
    virt.open()
    assert up(virt)
    assert carrier(virt)


def test_upopen_and_verbs_of_ones_own(virts: Virts) -> None:
    """The verbs up and down still have their effect, until the next open or close."""
    virt = virts("upopen")
    file = virt.open()
    virt.set("down")
    assert not up(virt)
    with fails(errno.EHOSTDOWN):
        file.read()
    file.close()
    virt.open()
    assert up(virt)


def test_opened_and_closed_again_and_again(virts: Virts) -> None:
    """The final state is right, however fast opens and closes follow each other."""
    virt = virts("upopen carrier open")
    for _ in range(20):
        virt.open().close()
    virt.until("tap/up", "0")
    virt.until("up", "0")
    file = virt.open()
    assert up(virt)
    assert carrier(virt)
    virt.mount.ctl(f"virt{virt.unit} mtu 1400")
    assert up(virt)
    file.close()
    virt.until("tap/up", "0")
    virt.until("up", "0")
    assert not up(virt)


def test_events_of_opening(virts: Virts) -> None:
    """Reads of wait/up and wait/carrier return when the open sets the interface up."""
    virt = virts("upopen carrier open")
    waits = [virt.mount.process().open(f"{virt.name}/wait/{what}", os.O_RDONLY) for what in ("up", "carrier")]
    reads = [wait.begin_read(9).waiting() for wait in waits]
    virt.open()
    assert [read.result() for read in reads] == [b"1\n", b"1\n"]
