"""Signals to waiting readers: captures survive Ctrl-Z and strace, and a signal that asks readers to end ends them."""

import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from harness.captured import Captured
from harness.places import DIR, finished
from harness.serving import Mount, Virt, frame
from harness.waiting import PATIENCE, until, until_it_waits

READERS = {
    "tcpdump": "exec tcpdump -n -U -w /mnt/copy -r {file}",
    "tcpdump, a pipe": "exec tcpdump -n -U -w /mnt/copy -r - <{file}",
    "tshark": "exec tshark -n -l -r {file}",
    "xxd": "exec xxd {file}",
    "perl": "exec perl -e 'while (sysread(STDIN, $b, 4096)) {{}} die' <{file}",
    "cat": "exec cat {file}",
}


def stop_and_go(mount: Mount, pid: int) -> None:
    """Do what Ctrl-Z and fg do. SIGTSTP does not stop a process in an orphaned group, so SIGSTOP is sent instead."""
    os.kill(pid, signal.SIGSTOP)
    until(partial(_state, pid, "T"), "the program is stopped")
    os.kill(pid, signal.SIGCONT)


def _state(pid: int, state: str) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == state


def _has(copy: Path, statistics: int) -> bool:
    return len(Captured(copy.read_bytes()).statistics) == statistics


def trace(mount: Mount, pid: int) -> None:
    """Attach strace(1) briefly."""
    tracer = mount.start("strace", "-o", "/dev/null", "-p", str(pid), stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    tracer.send_signal(signal.SIGINT)
    finished(tracer)


def change_window(mount: Mount, pid: int) -> None:
    """Send SIGWINCH, as a terminal does when its size changes."""
    os.kill(pid, signal.SIGWINCH)


@pytest.mark.parametrize("file", ["virt{n}/pcap", "pcap"])
@pytest.mark.parametrize("reader", READERS)
def test_a_capture_s_reader_lives_on(virt: Virt, reader: str, file: str) -> None:
    mount, path = virt.mount, file.format(n=virt.unit)
    program = mount.shell(
        READERS[reader].format(file=path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until_it_waits(program.pid)
    for disturb in (stop_and_go, trace, change_window):
        disturb(mount, program.pid)
        until_it_waits(program.pid)
        assert program.poll() is None
    until(partial(_interrupted, program), "SIGINT ends the program")


def _interrupted(program: "subprocess.Popen[str]") -> bool:
    """Press Ctrl-C, and return whether the program ends soon. A tcpdump that is just about to read misses a signal."""
    until_it_waits(program.pid)
    program.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        program.wait(timeout=PATIENCE / 5)
    return program.returncode is not None


COUNTER = """
$SIG{USR1} = sub { $caught++ };
while (defined($taken = sysread(STDIN, $block, 65536))) { last unless $taken; syswrite(STDOUT, $block) }
die "$!" unless defined $taken;
print STDERR "$caught";
"""


def test_a_handler_runs_and_the_capture_goes_on(virt: Virt) -> None:
    """Instead of EINTR, reads return statistics blocks with correct numbers."""
    reader = virt.mount.shell(
        f"exec perl -e '{COUNTER}' <{virt.name}/pcap >/mnt/copy", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until_it_waits(reader.pid)
    virt.host_sends(frame(60, 1), frame(60, 2))
    copy = Path(f"/proc/{virt.mount.pid}/root/mnt/copy")
    until(lambda: len(Captured(copy.read_bytes()).frames) == 2, "both frames are captured")
    for number in range(50):
        until_it_waits(reader.pid)
        reader.send_signal(signal.SIGUSR1)
        until(partial(_has, copy, number + 1), "a block instead of EINTR")
    virt.mount.ctl(f"destroy {virt.unit}")
    assert finished(reader)[1] == "50"
    captured = Captured(copy.read_bytes())
    assert captured.frames == [frame(60, 1), frame(60, 2)]
    assert len(captured.statistics) == 51
    assert set(captured.statistics) == {(2, 0)}


def test_a_reader_of_single_bytes_gets_no_more_than_it_reads(virt: Virt) -> None:
    """Many signals leave at most one unread statistics block."""
    # Not perl, which dies when 120 signals wait for its handler.
    script = "import os, signal; signal.signal(signal.SIGUSR1, lambda *_: None)\nwhile os.read(0, 1): pass"
    reader = virt.mount.start("bash", "-c", f'exec python3 -c "$0" <{DIR}/{virt.name}/pcap', script)
    until_it_waits(reader.pid)
    for _ in range(1000):
        reader.send_signal(signal.SIGUSR1)
    until_it_waits(reader.pid)
    clients = virt.read("clients")
    assert "pcap" in clients
    virt.mount.ctl(f"destroy {virt.unit}")
    finished(reader)


def test_the_root_s_capture_without_an_interface(mount: Mount) -> None:
    """Reads return a block without content, which every program skips."""
    reader = mount.shell(f"exec perl -e '{COUNTER}' <pcap >/mnt/copy", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until_it_waits(reader.pid)
    for _ in range(3):
        reader.send_signal(signal.SIGUSR1)
        until_it_waits(reader.pid)
    mount.sh("tcpdump -r /mnt/copy; tshark -r /mnt/copy; test $(stat -c %s /mnt/copy) -gt 0")
    reader.kill()
    finished(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM])
def test_a_handler_that_asks_a_capture_to_end_is_heard(virt: Virt, number: signal.Signals) -> None:
    """Like tcpdump, a program may check the flag set by its handler only between two reads."""
    name = number.name.removeprefix("SIG")
    script = f"$SIG{{{name}}} = sub {{}}; syswrite(STDOUT, qq(read\\n)) while sysread(STDIN, $b, 65536); print $!"
    reader = virt.mount.shell(
        f"LC_ALL=C exec perl -e '{script}' <{virt.name}/pcap", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "read\n"
    until_it_waits(reader.pid)
    reader.send_signal(number)
    assert finished(reader)[0] == "Interrupted system call"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_capture_at_once(virt: Virt, number: int) -> None:
    reader = virt.mount.shell(f"exec cat {virt.name}/pcap >/dev/null")
    until_it_waits(reader.pid)
    reader.send_signal(number)
    assert reader.wait(timeout=PATIENCE) == -number


@pytest.mark.parametrize("file", ["virt{n}/frame", "virt{n}/hex", "events", "virt{n}/wait/gone"])
def test_what_has_nothing_harmless_to_say_is_eintr(virt: Virt, file: str) -> None:
    script = "$SIG{USR1} = sub {}; print defined sysread(STDIN, $b, 99) ? q(something) : $!"
    reader = virt.mount.shell(
        f"LC_ALL=C exec perl -e '{script}' <{file.format(n=virt.unit)}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    until_it_waits(reader.pid)
    reader.send_signal(signal.SIGUSR1)
    assert finished(reader)[0] == "Interrupted system call"
