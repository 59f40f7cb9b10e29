"""filter: which of the host's frames an interface receives, as a libpcap expression."""

import errno
import os

import pytest
from harness.process import fails
from harness.serving import Virt, Virts, frame
from harness.watching import Watch

NUMBER = "ether[17]"  # the last byte of the number in a test frame


def test_only_what_matches_is_read(virt: Virt) -> None:
    virt.write("filter", f"{NUMBER} > 5\n")
    assert virt.read("filter") == f"{NUMBER} > 5"
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(*(frame(60, number) for number in range(10)))
    assert [file.read() for _ in range(4)] == [frame(60, number) for number in range(6, 10)]
    with fails(errno.EAGAIN):
        file.read()
    assert (virt.count("rx_frames"), virt.count("rx_dropped")) == (4, 6)


def test_only_what_matches_wakes_a_reader(virt: Virt) -> None:
    virt.set(f"filter {NUMBER} = 2")
    waiting = virt.open(os.O_RDONLY).begin_read().waiting()
    virt.host_sends(frame(60, 1), frame(60, 2))
    assert waiting.result() == frame(60, 2)


def test_captures_see_what_matches_and_all_that_is_sent(virt: Virt) -> None:
    virt.set(f"history 1M filter {NUMBER} = 2")
    watch = Watch(virt.mount, f"{virt.name}/pcap")
    virt.host_sends(*(frame(60, number) for number in range(5)))
    watch.until(1)
    virt.open(os.O_WRONLY).write(frame(60, 1))
    assert [(packet.frame, packet.way) for packet in watch.until(2).packets] == [
        (frame(60, 2), "in"),
        (frame(60, 1), "out"),
    ]
    assert virt.mount.sh(f"tcpdump -nn -r {virt.name}/history 2>/dev/null").count("ethertype") == 2


@pytest.mark.parametrize("clear", ["\n", "-filter", "filter"])
def test_it_is_cleared(virt: Virt, clear: str) -> None:
    virt.set("filter arp")
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(frame(60, 1))
    if clear == "\n":
        virt.write("filter", clear)
    else:
        virt.set(clear)
    assert virt.read("filter") == ""
    virt.host_sends(frame(60, 2))
    assert file.read() == frame(60, 2)
    assert "filter" not in virt.read("ctl")


def test_one_takes_over_from_another(virt: Virt) -> None:
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    for number in range(3):
        virt.write("filter", f"{NUMBER} = {number}\n")
        virt.host_sends(*(frame(60, other) for other in range(3)))
        assert file.read() == frame(60, number)
        with fails(errno.EAGAIN):
            file.read()


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("tcp port nonsense", "unknown port 'nonsense'"),
        ("host no.such.host.example", "no.such.host.example"),
        ("ether[17] =", "syntax error"),
        ("port 99999999", "99999999"),
    ],
)
def test_a_bad_one_is_refused_with_libpcap_s_words(virt: Virt, expression: str, why: str) -> None:
    virt.set("filter arp")
    with fails(errno.EINVAL):
        virt.write("filter", f"{expression}\n")
    told = virt.mount.read("last_error")
    assert told.startswith(f"{virt.name}/filter: ")
    assert why in told
    assert virt.read("filter") == "arp"
    with fails(errno.EINVAL):
        virt.set(f"filter {expression}")
    assert why in virt.mount.read("last_error")
    with fails(errno.EINVAL):
        virt.mount.ctl(f"create 77 up filter {expression}")
    assert not virt.mount.exists("virt77")


def test_a_line_that_is_refused_puts_it_back(virt: Virt) -> None:
    virt.set("filter arp")
    with fails(errno.EINVAL):
        virt.set("mtu 1400 filter nonsense nonsense")
    assert (virt.read("mtu"), virt.read("filter")) == ("1500", "arp")


def test_its_owner_may_set_it(virt: Virt) -> None:
    assert "Permission denied" in virt.mount.refused(f"echo arp >{virt.name}/filter", uid=1000)
    virt.set("owner 1000")
    virt.mount.sh(f"echo 'ether[17] = 7' >{virt.name}/filter", uid=1000)
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    virt.host_sends(frame(60, 6), frame(60, 7))
    assert file.read() == frame(60, 7)
    assert "Invalid argument" in virt.mount.refused(f"echo nonsense nonsense >{virt.name}/filter", uid=1000)
    assert "nonsense" in virt.mount.sh("cat last_error", uid=1000)
    assert virt.mount.read("last_error") != virt.mount.sh("cat last_error", uid=1000).strip()
    virt.mount.sh(f"echo >{virt.name}/filter", uid=1000)
    assert virt.read("filter") == ""


def test_ctl_shows_it_as_it_can_be_written(virts: Virts) -> None:
    virt = virts("up mtu 1400 filter arp or (ether proto 0x88b5 and ether[17] = 3)")
    line = "filter arp or (ether proto 0x88b5 and ether[17] = 3)"
    assert virt.read("ctl").endswith(f"{line}\n") or virt.read("ctl").splitlines()[-1] == line
    assert f"virt{virt.unit} {line}" in virt.mount.read("ctl")
    lines = virt.mount.read("ctl")
    virt.mount.ctl(f"destroy {virt.unit}")
    virt.mount.ctl(lines)
    assert virt.mount.read("ctl") == lines


def test_backlog_keeps_what_matches(virt: Virt) -> None:
    virt.set(f"backlog 2 filter {NUMBER} > 5")
    virt.host_sends(*(frame(60, number) for number in range(10)))
    file = virt.open(os.O_RDONLY | os.O_NONBLOCK)
    assert [file.read(), file.read()] == [frame(60, 8), frame(60, 9)]
    assert virt.count("rx_dropped") == 8


def test_tagged_frames(virt: Virt) -> None:
    virt.set("filter vlan 5 and ether proto 0x88b5")
    file = virt.open(os.O_RDONLY)
    tagged = [frame()[:12] + bytes((0x81, 0, 0, lan)) + frame()[12:] for lan in (6, 5)]
    virt.host_sends(frame(), *tagged)
    assert file.read() == tagged[1]
    assert virt.count("rx_dropped") == 2
