"""mark: a comment in captures, histories and events at this moment."""

import errno
import os

from harness.captured import Captured
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.watching import Watch, history


def comments(captured: Captured) -> list[str]:
    """Return for each packet its comment, or "" for a frame."""
    return [block.options.get("opt_comment", "") for block in captured.blocks if hasattr(block, "packet_data")]


def next_mark(events: File) -> list[str]:
    """Wait for the next mark among the events, and return its words. Frames that nobody reads may be dropped before."""
    while True:
        for line in events.read(4096).decode().splitlines():
            _, what, *words = line.split()
            if what == "mark":
                return words


def test_a_mark_stands_between_the_frames_around_it(virt: Virt) -> None:
    virt.set("history 64K")
    watch, events = Watch(virt.mount, f"{virt.name}/pcap"), virt.mount.process().open("events", os.O_RDONLY)
    virt.host_sends(frame(60, 1))
    virt.set("mark login begins #1")
    virt.host_sends(frame(60, 2))
    assert comments(watch.until(3)) == ["", "login begins #1", ""]
    assert comments(history(virt)) == ["", "login begins #1", ""]
    times = [packet.time for packet in watch.until(3).packets]
    assert times == sorted(times)
    assert next_mark(events) == [virt.name, "text=login\\x20begins\\x20#1"]


def test_wireshark_and_tcpdump_show_it(virt: Virt) -> None:
    virt.set("history 64K")
    virt.set("mark step 7")
    fields = "-T fields -e frame.interface_name -e frame.comment -e _ws.malformed"
    shown = virt.mount.sh(f"tshark -r {virt.name}/history -Y frame.comment {fields} 2>/dev/null")
    assert shown.strip("\n").split("\t") == [virt.name, "step 7", ""]
    assert "step.7" in virt.mount.sh(f"tcpdump -r {virt.name}/history 2>/dev/null")


def test_a_mark_of_the_mount_is_in_every_capture_once(virts: Virts) -> None:
    one, other = virts("up history 64K"), virts("up history 64K")
    mount = one.mount
    every, events = Watch(mount, "pcap"), mount.process().open("events", os.O_RDONLY)
    one.host_sends(frame(60, 1))
    mount.ctl("mark all of it")
    other.host_sends(frame(60, 2))
    assert comments(every.until(3)) == ["", "all of it", ""]
    assert "all of it" in comments(history(one))
    assert "all of it" in comments(history(other))
    assert next_mark(events) == ["mount", "text=all\\x20of\\x20it"]


def test_inject_skips_marks(virts: Virts) -> None:
    one, other = virts("up history 64K strict"), virts("up strict")
    one.open(os.O_WRONLY).write(frame(60, 1))
    one.set("mark between")
    one.open(os.O_WRONLY).write(frame(60, 2))
    one.mount.sh(f"cat {one.name}/history >{other.name}/inject")
    assert (other.count("tx_frames"), other.count("tx_dropped")) == (2, 0)


def test_marks_are_bounded(virt: Virt) -> None:
    """A history keeps the most recent marks. A mark is not part of the state."""
    virt.set("history 4K")
    before = virt.mount.read("ctl")
    virt.write("ctl", "".join(f"mark number {number}\n" for number in range(99)))
    kept = comments(history(virt))
    assert kept[-1] == "number 98"
    assert 1 < len(kept) < 99
    assert virt.mount.read("ctl") == before
    for wrong in ("", "x" * 257):
        with fails(errno.EINVAL):
            virt.set(f"mark {wrong}")
        with fails(errno.EINVAL):
            virt.mount.ctl(f"mark {wrong}")


def test_the_owner_marks_an_interface_and_only_root_the_mount(virt: Virt) -> None:
    mount = virt.mount
    virt.set("owner 4001 history 64K")
    mount.process(4001).open(f"{virt.name}/ctl", os.O_WRONLY).write("mark mine")
    assert comments(history(virt)) == ["mine"]
    with fails(errno.EACCES):
        mount.process(4002).open(f"{virt.name}/ctl", os.O_WRONLY)
    with fails(errno.EACCES):
        mount.process(4001).open("ctl", os.O_WRONLY)


def test_a_mark_without_an_interface_is_an_event(mount: Mount) -> None:
    events = mount.process().open("events", os.O_RDONLY)
    mount.ctl("mark nothing here")
    assert next_mark(events) == ["mount", "text=nothing\\x20here"]
