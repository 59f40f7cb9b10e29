"""Every call that waits ends within a second of SIGINT, SIGTERM and SIGKILL."""

import os
import re
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from harness.captured import pcap
from harness.places import DIR
from harness.serving import Mount, Virt, frame
from harness.waiting import PATIENCE, until

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
LINES = 20_000  # takes the server more than 10 s

# What waits, as a shell script in the mount point.
WAITING = {
    "read frame": "exec cat {virt}/frame >/dev/null",
    "read hex": "exec cat {virt}/hex >/dev/null",
    "read pcap": "exec cat {virt}/pcap >/dev/null",
    "read events": "exec cat events >/dev/null",
    "read wait/gone": "exec cat {virt}/wait/gone",
    "write inject": "echo pace 1 >{virt}/ctl; exec cat /mnt/hour >{virt}/inject",
    "write ctl": "exec cat /mnt/script >{virt}/ctl",
    "write the mount's ctl": "sed 's/^/{virt} /' /mnt/script >/mnt/whole; exec cat /mnt/whole >ctl #script",
}


def _waits(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer"


def script(virt: Virt) -> None:
    """Make /mnt/script, whose lines tell how far it has come."""
    lines = "".join(f"mtu {1400 + n % 2} description {n}\n" for n in range(1, LINES + 1))
    virt.mount.root.call(Path("/mnt/script").write_text, lines)


def reached(virt: Virt) -> int:
    return int(virt.read("description") or 0)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("waiting", WAITING)
def test_a_signal_ends_what_waits(virt: Virt, waiting: str, number: signal.Signals) -> None:
    mount = virt.mount
    if "script" in WAITING[waiting]:
        script(virt)
    if "hour" in WAITING[waiting]:
        mount.root.call(Path("/mnt/hour").write_bytes, pcap([(0, frame()), (3600, frame())]))
    program = mount.shell(WAITING[waiting].format(virt=virt.name), stderr=subprocess.DEVNULL)
    until(partial(_waits, program.pid), "the program waits in the mount")
    if "script" in WAITING[waiting]:
        until(lambda: reached(virt) > 10, "some lines have run")
    program.send_signal(number)
    assert program.wait(timeout=PATIENCE) == -number
    if "script" in WAITING[waiting]:
        came = reached(virt)
        assert 10 < came < LINES
        last = mount.read("last_error")
        assert re.fullmatch(r"line \d+: not run, because a signal interrupted the write; .*", last), last
        virt.set("up")
        assert reached(virt) == came, "the rest must not run"


def test_a_script_that_was_interrupted_goes_on(virt: Virt) -> None:
    """In a program that catches SIGALRM, write(2) returns the bytes whose lines have run. It then writes the rest."""
    program = """
$SIG{ALRM} = sub { $caught++ };
$rest = join '', map { 'mtu ' . (1400 + $_ % 2) . " description $_\\n" } 1 .. 600;
while (length $rest) {
  $taken = syswrite(STDOUT, $rest) // ($!{EINTR} ? 0 : die "$!");
  substr($rest, 0, $taken) = '';
  $writes++;
}
print STDERR "$caught $writes";
"""
    writer = virt.mount.start(
        "bash", "-c", f'exec perl -MErrno -e "$0" >{DIR}/{virt.name}/ctl', program, stderr=subprocess.PIPE
    )
    for goal in (20, 60, 100):
        until(lambda goal=goal: reached(virt) > goal, f"line {goal} has run")  # type: ignore[misc]
        os.kill(writer.pid, signal.SIGALRM)
    said = writer.communicate(timeout=30)[1]
    assert reached(virt) == 600
    caught, writes = map(int, said.split())
    assert caught >= 1
    assert writes >= 2, "the first signal came during a write; another one may come between two"


@pytest.mark.parametrize("number", SIGNALS)
def test_calls_beside_a_script(mount: Mount, virt: Virt, number: signal.Signals) -> None:
    """Calls that wait only for the server itself end too, while a script keeps it busy."""
    script(virt)
    writer = mount.shell(f"exec cat /mnt/script >{virt.name}/ctl")
    until(lambda: reached(virt) > 10, "some lines have run")
    for call in (
        "cat status.json",
        f"echo 64 >{virt.name}/queue",
        f"chmod 600 {virt.name}/frame",
        f"ls -l {virt.name}",
    ):
        loop = f"trap exit INT TERM; while :; do {call}; done"  # bash goes on if the signal comes between two calls
        program = mount.shell(loop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = reached(virt)
        until(lambda before=before: reached(virt) > before + 20, "the calls are running")  # type: ignore[misc]
        os.killpg(program.pid, number)
        program.wait(timeout=PATIENCE)
    writer.kill()
    writer.wait(timeout=PATIENCE)


def _is_stuck(pid: int) -> bool:
    """Return whether a process waits for the lock of an inode, where signals do not end the wait."""
    where = Path(f"/proc/{pid}/wchan").read_text()
    return any(name in where for name in ("write_iter", "rwsem"))


def test_a_signal_ends_a_second_writer(virt: Virt) -> None:
    """The kernel lets one writer at a time through, and that one gives way."""
    script(virt)
    first = virt.mount.shell(f"exec dd if=/mnt/script bs=1000K status=none >{virt.name}/ctl")  # in one write(2)
    until(lambda: reached(virt) > 10, "some lines have run")
    # Without O_TRUNC, since a wait for the lock in do_truncate can be killed on some kernels.
    second = virt.mount.shell(f"exec echo carrier off 1<>{virt.name}/ctl")
    until(lambda: _is_stuck(second.pid) or second.poll() is not None, "the second writer waits for the first one")
    second.kill()
    assert second.wait(timeout=PATIENCE) in (0, -signal.SIGKILL)
    assert first.poll() is None
    assert reached(virt) < LINES
    first.kill()
    first.wait(timeout=PATIENCE)


def test_two_scripts_take_turns(virt: Virt) -> None:
    """Every line runs once, also those that a write has left for the next one."""
    mount, last = virt.mount, 3000
    lines = "".join(f"mtu {1400 + n % 2} description {n}\n" for n in range(1, last + 1))
    mount.root.call(Path("/mnt/lines").write_text, lines)
    pipe = subprocess.PIPE
    second = mount.shell(
        f"exec 3>{virt.name}/ctl; echo; read -r; echo backlog 7 >&3; cat {virt.name}/description {virt.name}/backlog",
        stdin=pipe,
        stdout=pipe,
    )
    assert second.stdout is not None
    assert second.stdout.readline() == "\n"
    first = mount.shell(f"exec cat /mnt/lines >{virt.name}/ctl")
    until(lambda: reached(virt) > 10, "some lines have run")
    reached_then, backlog = second.communicate("\n", timeout=60)[0].split()
    assert (int(reached_then) < last, backlog) == (True, "7"), "the second writer has passed the first one"
    assert first.wait(timeout=60) == 0
    assert reached(virt) == last


def test_a_writer_that_ignores_the_rest_is_told(virt: Virt) -> None:
    script(virt)
    program = "import os; os.write(1, open('/mnt/script', 'rb').read(500_000))"
    virt.mount.sh(f'exec 3>{virt.name}/ctl; python3 -c "{program}" >{virt.name}/ctl')
    assert reached(virt) < LINES
    last = virt.mount.read("last_error")
    said = r"line \d+: not run, because write\(2\) returned early and the program did not continue"
    assert re.fullmatch(said, last), last


def test_a_background_job_that_ends_does_not_fail_a_call(mount: Mount, virt: Virt) -> None:
    """bash gets SIGCHLD during its own calls of open, write and stat, which are not interrupted."""
    lines = "".join(f"mtu {1400 + n % 2} description {n}\n" for n in range(1, 201))
    mount.root.call(Path("/mnt/lines").write_text, lines)
    script = f"""
lines=$(cat /mnt/lines)
{{ while read -r _ && kill -CHLD $$ 2>/dev/null; do :; done; }} < <(yes) &
printf '%s\\n' "$lines" >{virt.name}/ctl
for n in {{1..100}}; do
    echo $((1400 + n)) >{virt.name}/mtu
    [ -e {virt.name}/mtu ] || exit 4
done
kill $!
cat {virt.name}/description
"""
    assert mount.sh(script, seconds=2 * PATIENCE) == "200\n"


def test_a_signal_ends_a_call_after_a_harmless_one(virt: Virt) -> None:
    """The kernel reports only the first signal of a call to the server."""
    script(virt)
    program = "$SIG{CHLD} = sub {}; local $/; syswrite STDOUT, <STDIN>"
    command = f"exec perl -e '{program}' </mnt/script >{virt.name}/ctl"
    writer = virt.mount.shell(command, stdin=subprocess.DEVNULL)
    until(lambda: reached(virt) > 10, "some lines have run")
    writer.send_signal(signal.SIGCHLD)
    before = reached(virt)
    until(lambda: reached(virt) > before + 20, "the harmless signal has no effect")
    writer.send_signal(signal.SIGTERM)
    assert writer.wait(timeout=PATIENCE) == -signal.SIGTERM
    assert reached(virt) < LINES
