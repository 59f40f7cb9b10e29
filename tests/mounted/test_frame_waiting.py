"""Waiting readers: what ends their wait, and that nothing else waits with them."""

import errno
import os
import select
import signal
import subprocess
from functools import partial

import pytest
from harness.places import DIR, finished
from harness.process import File, fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import PATIENCE, until, until_it_waits


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("tool", ["cat virt{n}/frame", "dd if=virt{n}/frame bs=2048 status=none"])
def test_a_signal_ends_a_waiting_reader(virt: Virt, tool: str, number: int) -> None:
    """Ctrl-C, kill, kill -9."""
    reader = virt.mount.shell(f"exec {tool.format(n=virt.unit)}", stdout=subprocess.PIPE)
    until_it_waits(reader.pid)
    reader.send_signal(number)
    assert reader.wait(timeout=PATIENCE) == -number
    virt.open()  # the reader's seat is free again


def test_a_signal_that_is_caught_is_eintr(virt: Virt) -> None:
    """read(2) fails with EINTR unless the handler was installed with SA_RESTART, which perl never uses."""
    script = "$SIG{USR1} = sub {}; print defined sysread(STDIN, $frame, 99) ? q(a frame) : $!"
    reader = virt.mount.shell(f"LC_ALL=C exec perl -e '{script}' <{virt.name}/frame", stdout=subprocess.PIPE)
    until_it_waits(reader.pid)
    reader.send_signal(signal.SIGUSR1)
    assert finished(reader)[0] == "Interrupted system call"


def test_a_program_with_sa_restart_goes_on(virt: Virt) -> None:
    """bash runs its trap and reads again."""
    script = f"trap 'echo caught' USR1; echo >&2; read -r -N 9 text <{virt.name}/frame; echo $text"
    reader = virt.mount.shell(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stderr is not None
    reader.stderr.readline()
    until_it_waits(reader.pid)
    reader.send_signal(signal.SIGUSR1)
    virt.host_sends(b"hello" * 12)
    assert "hello" in finished(reader)[0]


def test_another_thread_writes_meanwhile(virt: Virt) -> None:
    """Full duplex on one descriptor."""
    file = virt.open()
    waiting = file.begin_read().waiting()
    for number in range(10):
        file.write(frame(60, number))
        assert virt.host_gets() == frame(60, number)
    virt.host_sends(frame(99))
    assert waiting.result() == frame(99)


def test_500_readers_wait_and_ls_answers(virt: Virt) -> None:
    virt.set("exclusive none queue 500")
    crowd = virt.mount.process()
    files = [virt.open(os.O_RDONLY, crowd) for _ in range(500)]
    readers = [file.begin_read() for file in files]
    for reader in readers:
        reader.waiting()
    assert virt.name in virt.mount.sh("ls -l")
    virt.host_sends(*(frame(60, number) for number in range(500)))
    got = [reader.result() for reader in readers]
    assert sorted(got) == sorted(frame(60, number) for number in range(500))
    crowd.kill()
    assert virt.mount.sh(f"cat {virt.name}/mtu") == "1500\n"
    virt.open()


def test_500_waiting_readers_are_killed_at_once(virt: Virt) -> None:
    virt.set("exclusive none")
    crowd = virt.mount.process()
    readers = [virt.open(os.O_RDONLY, crowd).begin_read() for _ in range(500)]
    for reader in readers:
        reader.waiting()
    crowd.kill()
    file = virt.open()
    virt.host_sends(frame())
    assert file.read() == frame()


def test_destroyed_while_waiting(virt: Virt) -> None:
    """The read fails with ENXIO, and so does every later call."""
    file = virt.open()
    waiting = file.begin_read().waiting()
    other = virt.mount.process().open(virt.tap, os.O_WRONLY)
    virt.mount.ctl(f"destroy {virt.unit}")
    with fails(errno.ENXIO):
        waiting.result()
    _is_gone(file)
    with fails(errno.ENXIO):
        other.write(frame())
    assert not virt.mount.exists(virt.name)
    assert not virt.mount.exists(virt.tap)
    assert not virt.mount.has(virt.tap)
    file.close()


def test_a_reader_of_an_earlier_one_reads_nothing_of_the_next(virt: Virt) -> None:
    """A new interface with the same unit is a different interface."""
    old = virt.open()
    virt.mount.ctl(f"destroy {virt.unit}")
    again = Virt(virt.mount, virt.unit)
    again.host_sends(frame())
    new = again.open()
    again.host_sends(frame(61))
    _is_gone(old)
    assert new.read() == frame(61)


def test_what_finds_the_same_unit_again(virt: Virt) -> None:
    """A bind mount refers to the old file, which is gone with its interface. A name is looked up again."""
    script = f"""
        mkdir /mnt/names; cd /mnt/names; touch bound; mkdir all
        mount --bind {DIR}/{virt.tap} bound; mount --bind {DIR} all; ln -s {DIR}/{virt.tap} link
        trap 'umount bound all; rm -r /mnt/names' EXIT
        echo "destroy {virt.unit}
        create {virt.unit} up" >{DIR}/ctl
        for name in link all/{virt.tap} all/{virt.name}/frame; do head -c 60 /dev/zero >$name; done
        head -c 60 /dev/zero >bound || echo gone
    """
    assert virt.mount.sh(script) == "gone\n"
    assert virt.count("tx_frames") == 3


def test_the_tap_deleted_from_outside_while_waiting(virts: Virts) -> None:
    virt, other = virts(), virts()
    file, neighbour = virt.open(), other.open()
    waiting, neighbour_waits = file.begin_read().waiting(), neighbour.begin_read().waiting()
    polling = file.begin_poll(select.POLLIN)
    virt.mount.ip(f"link del {virt.tap}")
    with fails(errno.ENXIO):
        waiting.result()
    assert polling.result() & select.POLLERR  # the kernel may report the tap as down before it reports it as gone
    assert file.poll(select.POLLIN) & (select.POLLERR | select.POLLHUP) == select.POLLERR | select.POLLHUP
    _is_gone(file)
    with fails(errno.ENXIO):
        virt.open()
    other.host_sends(frame())
    assert neighbour_waits.result() == frame()
    virt.mount.ctl(f"destroy {virt.unit}\ncreate {virt.unit} up")
    again = virt.open()
    virt.mount.ip(f"addr add 10.{virt.unit // 200}.{virt.unit % 200}.1/24 dev {virt.tap}")
    assert again.begin_read(60).waiting()


def test_deleted_while_nobody_looks(virt: Virt) -> None:
    virt.mount.ip(f"link del {virt.tap}")
    with fails(errno.ENXIO):
        virt.open(os.O_WRONLY)
    with fails(errno.ENXIO):
        virt.set("up")
    virt.mount.ctl(f"destroy {virt.unit}")


def _is_gone(file: File) -> None:
    for call in (lambda: file.read(), lambda: file.write(frame()), lambda: file.ioctl(0x80286500, bytes(40))):
        with fails(errno.ENXIO):
            call()
    gone = select.POLLERR | select.POLLHUP
    assert file.poll(select.POLLIN | select.POLLOUT) & gone == gone


def test_a_cable_of_cats_is_suspended_and_resumed(virts: Virts, mount: Mount) -> None:
    """As by Ctrl-Z and fg."""
    left, right = virts(), virts()
    cats = [
        mount.shell(f"exec cat {a.name}/frame >{b.name}/frame", stderr=subprocess.PIPE, process_group=0)
        for a, b in ((left, right), (right, left))
    ]
    for cat in cats:
        until_it_waits(cat.pid)
    left.host_sends(frame(60, 1))
    assert right.host_gets() == frame(60, 1)
    for stop in (signal.SIGTSTP, signal.SIGSTOP):
        for cat in cats:
            cat.send_signal(stop)
            until(partial(_suspended, cat.pid), "cat is suspended")
        for cat in cats:
            cat.send_signal(signal.SIGCONT)
        left.host_sends(frame(60, 2))
        right.host_sends(frame(61, 3))
        assert right.host_gets() == frame(60, 2)
        assert left.host_gets() == frame(61, 3)
    assert [cat.poll() for cat in cats] == [None, None]


def _suspended(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"
