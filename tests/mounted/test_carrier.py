"""carrier off: an unplugged cable, while the interface stays up."""

import errno
import os
import select

from harness.process import fails
from harness.serving import Virt, Virts, frame
from harness.waiting import until


def test_off_unplugs_and_always_plugs_in(virt: Virt) -> None:
    virt.until("tap/carrier", "1")
    waiter = virt.mount.process().open(f"{virt.name}/wait/carrier", os.O_RDONLY)
    events = virt.mount.process().open("events", os.O_RDONLY)
    virt.set("carrier off")
    assert (virt.read("carrier"), virt.read("tap/carrier"), virt.read("up")) == ("off", "0", "1")
    assert "NO-CARRIER" in virt.mount.ip(f"link show {virt.tap}")
    assert waiter.poll(select.POLLIN) == 0
    assert "carrier off" in virt.mount.read("ctl")
    virt.set("carrier always")
    assert virt.read("tap/carrier") == "1"
    assert waiter.poll(select.POLLIN) == select.POLLIN
    told = [events.read(4096).decode().split()[1:] for _ in range(2)]
    assert told == [["carrier", virt.name, "carrier=0"], ["carrier", virt.name, "carrier=1"]]


def test_no_frame_passes_an_unplugged_cable(virt: Virt) -> None:
    port = virt.open()
    virt.set("carrier off")
    port.write(frame(60, 1))
    assert (virt.count("tx_dropped"), virt.count("tx_down"), virt.count("tx_frames")) == (1, 1, 0)
    virt.host_sends(frame(60, 2))
    assert port.poll(select.POLLIN) == 0
    virt.set("strict")
    with fails(errno.ENETDOWN):
        port.write(frame(60, 3))
    assert "unplugged" in virt.mount.read("last_error") or virt.count("tx_down") == 2
    virt.set("carrier always -strict")
    virt.host_sends(frame(60, 4))
    assert port.read(2048) == frame(60, 4)
    port.write(frame(60, 5))
    assert virt.host_gets() == frame(60, 5)


def test_a_filter_set_while_unplugged_counts_afterwards(virt: Virt) -> None:
    port = virt.open()
    virt.set("carrier off")
    virt.set("filter len > 100")
    virt.host_sends(frame(60, 1))
    virt.set("carrier open")
    virt.host_sends(frame(60, 2), frame(200, 3))
    assert port.read(2048) == frame(200, 3)
    virt.set("-filter")
    virt.host_sends(frame(60, 4))
    assert port.read(2048) == frame(60, 4)


def test_a_frame_that_an_impairment_delays_is_lost(virt: Virt) -> None:
    virt.set("impair out delay 100ms")
    virt.open(os.O_WRONLY).write(frame(60))
    virt.set("carrier off")
    until(lambda: virt.count("tx_dropped"), "the frame is dropped")
    assert virt.count("tx_frames") == 0


def test_a_cable_to_an_unplugged_interface_carries_nothing(virts: Virts) -> None:
    one, other = virts(), virts()
    one.mount.ctl(f"cable {one.unit} {other.unit}")
    other.set("carrier off")
    one.host_sends(frame(60, 1))
    until(lambda: other.count("tx_dropped"), "the frame is dropped")
    assert other.count("tx_frames") == 0
    other.set("carrier always")
    one.host_sends(frame(60, 2))
    assert other.host_gets() == frame(60, 2)


def test_it_stays_unplugged_in_another_namespace_and_a_failed_line_plugs_it_back(virt: Virt) -> None:
    virt.mount.sh("ip netns add far")
    virt.set("carrier off")
    virt.set("netns far")
    assert (virt.read("tap/carrier"), virt.read("up")) == ("0", "1")
    virt.set("carrier always")
    with fails(errno.EADDRNOTAVAIL):
        virt.set("carrier off -inet 10.9.9.9")
    assert (virt.read("carrier"), virt.read("tap/carrier")) == ("always", "1")
    port = virt.open(os.O_WRONLY)
    port.write(frame(60))
    assert virt.count("tx_frames") == 1
