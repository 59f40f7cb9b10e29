"""clients: which programs have files open, and how many frames they have read and lost."""

import os
import select
import subprocess
import sys
from collections.abc import Callable

import pytest
from harness.places import DIR, Place, finished
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until, until_it_waits

HEAD = ["PID", "COMMAND", "FILE", "TAKEN", "WAITING", "DROPPED", "UID"]


def rows(virt: Virt) -> list[list[str]]:
    """Return the rows of the table without its header."""
    head, *rest = [line.split() for line in virt.read("clients").splitlines()]
    assert head == HEAD
    return rest


def test_nobody(virt: Virt) -> None:
    assert rows(virt) == []


def test_who_has_what(virt: Virt) -> None:
    mount = virt.mount
    cat = mount.shell(f"exec cat {virt.name}/frame", stdout=subprocess.PIPE)
    until_it_waits(cat.pid)
    waiter = mount.shell(f"exec dd if={virt.name}/wait/gone status=none", uid=4001, stdout=subprocess.PIPE)
    until_it_waits(waiter.pid)
    assert rows(virt) == [
        [str(cat.pid), "cat", "frame", "0", "0", "0", "0"],
        [str(waiter.pid), "dd", "wait/gone", "0", "0", "0", "4001"],
    ]
    cat.kill()
    cat.wait()
    until(lambda: [row[1] for row in rows(virt)] == ["dd"], "cat is gone from the table")


# Opens a file and ends, and leaves it to a child, as daemon(3) does.
FORKS = "exec 3<>{name}/{file}; sleep inf & exec true"


# Opens a file as user 4001, lets a child have it that runs as user 4002, and ends.
GIVES = """
import os, sys, time
os.setresuid(4001, 4001, 0)
os.open(sys.argv[1], os.O_RDONLY)
changed, changes = os.pipe()
if not os.fork():
    os.setresuid(-1, 0, -1)
    os.setresuid(4002, 4002, 4002)
    os.close(changes)
    time.sleep(1000)
os.close(changes)
os.read(changed, 1)
"""


@pytest.mark.parametrize("file", ["frame", "hex", "stream"])
def test_a_program_that_has_become_a_daemon(virt: Virt, file: str) -> None:
    """The table, and the message to another program, name the process that lives."""
    mount = virt.mount
    virt.set("owner 4001")
    first = mount.shell(FORKS.format(name=virt.name, file=file), uid=4001)
    first.wait()
    until(lambda: [row[1:3] for row in rows(virt)] == [["sleep", file]], "the table names the daemon")
    [[pid, *_, uid]] = rows(virt)
    assert uid == "4001"
    assert pid != str(first.pid)
    refused = mount.refused(f"{sys.executable} -m virtfs exec {virt.name} -- true")
    assert f"process {pid} is reading {virt.name} (see clients)" in refused
    mount.sh(f"kill {pid}")
    until(lambda: rows(virt) == [], "the daemon is gone from the table")


def test_two_daemons(virt: Virt) -> None:
    """One reads and one writes, so that each row has its own."""
    mount = virt.mount
    script = FORKS.format(name=virt.name, file="frame")
    for way in ("<", ">"):
        mount.shell(script.replace("<>", way)).wait()
    seen = "; ".join(f"grep ^flags /proc/{row[0]}/fdinfo/3" for row in rows(virt))
    assert [line[-1] for line in mount.sh(seen).splitlines()] == ["0", "1"], "O_RDONLY and O_WRONLY"


def test_a_descriptor_is_given_to_another_user(virt: Virt) -> None:
    """The row does not name his process, which root might end in place of the user's."""
    virt.set("owner 4001")
    giver = virt.mount.start(sys.executable, "-c", GIVES, f"{DIR}/{virt.name}/frame")
    giver.wait()
    assert [row[:2] for row in rows(virt)] == [[str(giver.pid), "?"]]


def test_an_interface_is_taken_away_from_a_user(virt: Virt) -> None:
    """A change of the owner ends no open, and the lines of virtfs(5), RIGHTS, do."""
    mount = virt.mount
    mount.ctl(f"{virt.name} owner 4001")
    reader = mount.shell(f"exec cat {virt.name}/frame", uid=4001, stdout=subprocess.PIPE)
    other = mount.shell(f"exec cat {virt.name}/wait/gone", uid=4002, stdout=subprocess.PIPE)
    until_it_waits(reader.pid)
    until_it_waits(other.pid)
    mount.ctl(f"{virt.name} owner root mode 600")
    assert {row[0] for row in rows(virt)} == {str(reader.pid), str(other.pid)}
    mount.sh(f"awk '$1 && $NF == 4001 {{ print $1 }}' {virt.name}/clients | sort -u | xargs -r kill -KILL")
    assert finished(reader)[0] == ""
    until(lambda: [row[0] for row in rows(virt)] == [str(other.pid)], "only the process of the other user is left")


def test_frames_taken_and_waiting(virt: Virt) -> None:
    reader = virt.open(os.O_RDONLY)
    for number in range(3):
        virt.host_sends(frame(60, number))
        reader.read()
    assert rows(virt)[0][3] == "3"
    writer = virt.open(os.O_WRONLY)
    writer.write(frame())
    assert [row[2:4] for row in rows(virt)] == [["frame", "3"], ["frame", "0"]]
    reader.close()
    until(lambda: len(rows(virt)) == 1, "the reader's row is gone")


def test_of_its_own_interface_only(virts: Virts) -> None:
    one, other = virts(), virts()
    one.open()
    assert (len(rows(one)), len(rows(other))) == (1, 0)


def test_everybody_may_read_it(virt: Virt) -> None:
    virt.open()
    assert len(virt.mount.sh(f"cat {virt.name}/clients", uid=4001).splitlines()) == 2
    assert "Permission denied" in virt.mount.refused(f"LC_ALL=C; echo >{virt.name}/clients", uid=4001)


def test_columns_are_aligned(virt: Virt) -> None:
    for name in ("frame", "wait/carrier", "wait/up"):
        virt.mount.process().open(f"{virt.name}/{name}", os.O_RDONLY)
    lines = virt.read("clients").splitlines()
    at = lines[0].index("FILE")
    assert all(line[at - 1] == " " != line[at] for line in lines)


def test_a_crowd(virt: Virt, mount: Mount) -> None:
    """The table is longer than one read into a small buffer."""
    crowd = mount.process()
    for _ in range(300):
        crowd.open(f"{virt.name}/wait/gone", os.O_RDONLY)
    assert len(rows(virt)) == 300
    assert len(mount.sh(f"dd bs=100 if={virt.name}/clients status=none").splitlines()) == 301
    crowd.kill()
    until(lambda: rows(virt) == [], "all rows are gone")


def test_a_name_with_blanks_or_worse(virt: Virt) -> None:
    """Each program has one line, even if its name contains a newline."""
    script = r"printf 'a b\nc' >/proc/$$/comm; exec 3<" + f"{virt.name}/wait/gone; echo; read x"
    shell = virt.mount.shell(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shell.stdout is not None
    shell.stdout.readline()
    lines = virt.read("clients").splitlines()
    assert len(lines) == 2
    assert f"{shell.pid} " in lines[1]
    assert "wait/gone" in lines[1]
    shell.kill()
    shell.wait()


def test_poll_tells_of_comers_and_goers(virt: Virt) -> None:
    file = virt.mount.process().open(f"{virt.name}/clients", os.O_RDONLY)
    file.read()
    virt.open()
    assert file.poll(select.POLLPRI) & select.POLLPRI
    file.call(os.lseek, 0, os.SEEK_SET)
    assert b"frame" in file.read()


def test_from_another_namespace(virt: Virt, places: Callable[[], Place]) -> None:
    """Moving the tap does not change the table."""
    file = virt.open(os.O_RDONLY)
    virt.set(f"netns {places().pid}")
    assert [row[2] for row in rows(virt)] == ["frame"]
    file.close()
