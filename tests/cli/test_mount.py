"""Mounting and unmounting, as users and their programs see it."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from harness.running import HELPER, VIRTFS, mounted, run, script, serving
from harness.users import HIS_VIRTFS, ONE_ID, as_user
from harness.waiting import PATIENCE

import virtfs


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "a mount"  # the kernel's mount table escapes the space
    path.mkdir()
    return path


WAYS_TO_END = {
    "SIGINT": lambda pid, directory: os.kill(pid, signal.SIGINT),
    "SIGTERM": lambda pid, directory: os.kill(pid, signal.SIGTERM),
    "SIGHUP": lambda pid, directory: os.kill(pid, signal.SIGHUP),
    "virtfs umount": lambda pid, directory: run([*VIRTFS, "umount", directory]).check_returncode(),
    "umount -l": lambda pid, directory: run(["umount", "-l", directory]).check_returncode(),
}


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_each_way_to_end_answers_readers_and_removes_taps(directory: Path, way: str) -> None:
    with serving(directory) as server:
        (directory / "ctl").write_text("create 3 up\n")
        assert "tap3" in server.ip("link")
        with server.reader() as reader:
            WAYS_TO_END[way](server.process.pid, str(directory))
            assert "No such device or address" in reader.communicate(timeout=PATIENCE)[1]
        assert server.process.wait(timeout=PATIENCE) == 0
        assert "tap3" not in server.ip("link")
        assert not mounted(directory)


def test_fusermount_unmounts_when_no_file_is_open(directory: Path) -> None:
    with serving(directory) as server:
        (directory / "ctl").write_text("create 3 up\n")
        with server.reader() as reader:
            refused = run(["fusermount3", "-u", str(directory)])
            assert "busy" in refused.stderr
            reader.terminate()
        assert run(["fusermount3", "-u", str(directory)]).returncode == 0
        assert server.process.wait(timeout=PATIENCE) == 0
        assert "tap3" not in server.ip("link")


def test_umount_returns_when_the_server_has_finished(directory: Path) -> None:
    with serving(directory) as server:
        (directory / "ctl").write_text("".join(f"create {n} up\n" for n in range(20)))
        assert run([*VIRTFS, "umount", str(directory)]).returncode == 0
        assert "tap" not in server.ip("link")
        assert server.process.wait(timeout=PATIENCE) == 0


def test_in_the_background_it_answers_when_the_command_returns(directory: Path) -> None:
    done = script(
        """
        $virtfs mount "$1"
        ls "$1"
        echo create 3 >"$1/ctl"
        ip -br link show tap3
        $virtfs umount "$1"
        ! ip link show tap3 2>/dev/null
        ! grep -F virtfs /proc/self/mountinfo
        """,
        str(directory),
    )
    assert done.returncode == 0, done.stderr
    assert "ctl" in done.stdout
    assert done.stderr == ""


def test_files_that_the_mount_hides_are_named(directory: Path) -> None:
    """A command written to `ctl` before the mount makes a plain file, and no interface."""
    done = script(
        """
        echo create 3 >"$1/ctl"
        for n in 1 2 3 4 5 6; do echo >"$1/n$n"; done
        $virtfs mount "$1"
        ls "$1"
        $virtfs umount "$1"
        """,
        str(directory),
    )
    assert done.returncode == 0, done.stderr
    assert "virt3" not in done.stdout
    names = ", ".join(f'"{name}"' for name in ("ctl", "n1", "n2", "n3", "n4"))
    warning = f'"{directory}" is not empty: the mount hides {names} and 2 more'
    assert done.stderr == f"virtfs: warning: {warning}; a shell that is already there must cd to it again\n"
    assert (directory / "ctl").read_text() == "create 3\n"


def test_a_mount_that_no_other_process_sees_gets_a_warning(directory: Path) -> None:
    """`ip netns exec` runs its command in a mount namespace of its own, and so does unshare(1)."""
    done = script(
        """
        unshare --mount $virtfs mount "$1" 2>&1
        ls "$1"
        ps -C python,python3 -o pid=
        """,
        str(directory),
    )
    said, server = done.stdout.splitlines()
    assert said.startswith(f'virtfs: warning: no other process sees the mount at "{directory}", because ')
    assert f": end it with `kill {server.strip()}`, then use `nsenter --net=" in said
    assert done.stderr == ""


def test_ctl_writes_to_no_plain_file(directory: Path) -> None:
    (directory / "ctl").touch()
    done = run([*VIRTFS, "ctl", "-d", str(directory), "create", "3"])
    assert (done.returncode, done.stderr) == (1, f'virtfs: there is no virtfs mounted at "{directory}"\n')
    assert (directory / "ctl").read_text() == ""


def test_lines_that_could_not_be_replayed_are_counted_when_it_mounts(directory: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("create 3\ncreate 4 netns nosuch\nwobble\n")
    done = script(
        '$virtfs mount -o state="$2" "$1"; $virtfs ls -d "$1"; $virtfs umount "$1"', str(directory), str(state)
    )
    said = f'2 lines of the state file could not be replayed: "virtfs ls -d {directory}" has the reasons'
    assert (done.returncode, done.stderr) == (0, f"virtfs: warning: {said}\n")
    assert done.stdout.splitlines()[-3:] == [
        f" NOT REPLAYED: 2 lines of {state}; the command retry runs them again",
        '  create 4 netns nosuch: there is no network namespace "nosuch"',
        '  wobble: unknown command "wobble": "virtfs ctl help" lists the commands',
    ]


def test_a_tap_of_the_host_that_a_line_uses_is_told_when_it_mounts(directory: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("create 3 inet 10.0.3.1/24 up\n")
    done = script(
        'ip tuntap add tap3 mode tap; $virtfs mount -o state="$2" "$1"; $virtfs umount "$1"', str(directory), str(state)
    )
    said = '"tap3" existed before: virtfs uses it with its settings, and destroy leaves it as it was'
    assert (done.returncode, done.stderr) == (0, f"virtfs: warning: {said}\n")
    assert state.read_text().startswith("# found: tap3\n")


def test_a_state_that_cannot_be_saved_is_told_when_it_mounts(directory: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = script(
        'mount -t tmpfs -o size=8k tmpfs "$2"; echo create 3 >"$2/state"; head -c 8000 /dev/zero >"$2/fill" 2>/dev/null'
        ' || $virtfs mount -o state="$2/state" "$1"; $virtfs ls -d "$1"; $virtfs umount "$1"; umount "$2"',
        str(directory),
        str(disk),
    )
    said = done.stderr.splitlines()[0].removeprefix("virtfs: warning: ")
    assert re.fullmatch('cannot save the state file ".*": No space left on device', said)
    assert f" NOT SAVED: {said}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("signal_name", "status", "told"),
    [
        ("INT", 130, 'virtfs: interrupted: the mount at "{directory}" was given up before it was ready\n'),
        ("TERM", 143, ""),
        ("KILL", 137, ""),
    ],
)
def test_a_mount_command_that_is_interrupted_takes_its_server_along(
    directory: Path, tmp_path: Path, signal_name: str, status: int, told: str
) -> None:
    """The state file keeps all its lines, also those that were not yet replayed."""
    text = "".join(f"create {n} up\n" for n in range(600))
    state, log = tmp_path / "state", tmp_path / "log"
    state.write_text(text)
    done = script(
        """
        env --default-signal=INT $virtfs mount -o state="$2",log="$3" "$1" &
        until ip link show tap5 >/dev/null 2>&1; do sleep 0.02; done
        kill -$4 $!
        wait $! || echo status $?
        while ps -C python,python3 -o pid= >/dev/null; do sleep 0.02; done
        ip -br link
        ! grep -F virtfs /proc/self/mountinfo
        """,
        str(directory),
        str(state),
        str(log),
        signal_name,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, log.read_text())
    ours = [line for line in done.stderr.splitlines(True) if "virtfs" in line]  # the shell may add that it was killed
    assert "".join(ours) == told.format(directory=directory)
    first, *links = done.stdout.splitlines()
    assert first == f"status {status}"
    assert [line.split()[0] for line in links] == ["lo"]
    assert state.read_text() == text
    said = log.read_text()
    assert f'WARNING virtfs.cli.mount: the mount at "{directory}" was ended before it was ready\n' in said
    assert "Traceback" not in said
    assert "is mounted" not in said


def test_a_second_mount_is_refused_and_a_dead_one_is_cleaned(directory: Path) -> None:
    with serving(directory) as server:
        refused = run([*VIRTFS, "mount", str(directory)])
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f'virtfs: "{directory}" is busy: virtfs is already mounted there\n'
        server.process.kill()
        server.process.wait()
        assert mounted(directory)
        with serving(directory) as again:
            assert (directory / "version").read_text().startswith("virtfs ")
            again.process.terminate()
            assert again.process.wait(timeout=PATIENCE) == 0
        assert not mounted(directory)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mount", "{}/missing"], '"{}/missing": No such file or directory'),
        (["mount", "{}/file"], '"{}/file" is not a directory'),
        (
            ["mount", "-o", "max_queue=4,colour=red", "{}"],
            'unknown mount option "colour=red": "virtfs mount --help" lists all',
        ),
        (
            ["mount", "-o", "log={}/missing/log", "{}"],
            'cannot open the log file "{}/missing/log": No such file or directory',
        ),
        (["mount", "-f", "/proc"], '"/proc" is busy: proc (proc) is already mounted there'),
        (["umount", "{}"], '"{}" is not mounted'),
        (["umount", "/proc"], '"/proc" is a mount of proc (proc), not of virtfs'),
    ],
)
def test_what_cannot_be_is_said_with_its_reason(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "file").touch()
    done = run([*VIRTFS, *(word.replace("{}", str(tmp_path)) for word in arguments)])
    assert done.stderr == f"virtfs: {sentence.replace('{}', str(tmp_path))}\n"
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3",
            "there is no /dev/fuse: as root, run `modprobe fuse`; a",
        ),
        ("mount --bind /dev/null $(readlink -f $(command -v fusermount3))", "there is no fusermount3: install"),
    ],
)
def test_a_system_that_lacks_something_is_told_what(directory: Path, change: str, sentence: str) -> None:
    done = script(change + '; $virtfs mount "$1"', str(directory))
    assert done.stderr.startswith(f"virtfs: {sentence}")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mount", "-o", "remount,ro", "{}"], 'cannot read the current options of "{}"'),
        (["ctl", "-d", "{}", "create 3"], '"{}/ctl"'),
        (["exec", "{}/virt3", "--", "true"], 'exec: "{}/virt3"'),
        (["exec", "virt99", "--", "true"], 'exec: "{}"'),
    ],
)
def test_a_mount_whose_server_was_killed_is_to_be_mounted_again(
    directory: Path, arguments: list[str], sentence: str
) -> None:
    with serving(directory) as server:
        server.process.kill()
        server.process.wait()
        done = run([*VIRTFS, *(word.replace("{}", str(directory)) for word in arguments)])
        remedy = "the server was killed: mount again with the same options"
        said = f"{sentence.replace('{}', str(directory))}: Transport endpoint is not connected: {remedy}"
        assert (done.returncode, done.stderr) == (1, f"virtfs: {said}\n")


def test_an_ordinary_user_is_told_of_the_shell() -> None:
    """Access to a directory of root's or to /dev/fuse would not help, so the message does not ask for it."""
    for user, directory in (
        (ONE_ID, "/usr"),
        (ONE_ID, "/mnt/home"),
        (as_user(before="chmod 600 /mnt/fuse"), "/mnt/home"),
    ):
        done = run([*user, *HIS_VIRTFS, "mount", directory])
        needed = "taps need CAP_NET_ADMIN and CAP_NET_BROADCAST"
        assert done.stderr == f"virtfs: {needed}: run virtfs as root, or use `virtfs shell`\n"
        assert done.returncode == 1


def test_an_ordinary_user_cannot_unmount_another_ones(directory: Path) -> None:
    directory.parent.chmod(0o755)
    done = script(
        """
        $virtfs mount "$1"
        unshare --user --map-user=1000 -- $virtfs umount "$1" || $virtfs umount "$1"
        """,
        str(directory),
    )
    # The owner of the mount has no uid in the ordinary user's namespace, so the message cannot name the owner.
    assert "not by you" in done.stderr
    assert done.returncode == 0


def test_the_log_goes_to_the_file_that_was_said(directory: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = script('$virtfs mount -o "log=$2" "$1"; $virtfs umount "$1"', str(directory), str(log))
    assert done.returncode == 0, done.stderr
    assert f'"{directory}" is mounted' in log.read_text()
    assert f'"{directory}" is unmounted' in log.read_text()


HANGING = """
import trio
from virtfs.cli import main, serving
from virtfs.daemon.service import serve

async def hang(fuse, directory, limits, ready, *rest):
    await serve(fuse, directory, limits, ready, trio.Event())

serving.serve = hang
main.main()
"""


def test_a_second_signal_ends_a_server_that_hangs(directory: Path) -> None:
    with serving(directory, command=[sys.executable, "-c", HANGING]) as server:
        assert server.process.stderr is not None
        server.process.terminate()
        assert "SIGTERM: ending" in server.process.stderr.readline()
        assert (directory / "version").read_text()  # the server still runs
        server.process.terminate()
        server.process.wait(timeout=PATIENCE)
        assert not mounted(directory)


def test_mount_calls_the_helper(directory: Path, tmp_path: Path) -> None:
    """mount(8) runs /sbin/mount.virtfs, which is the only file of /sbin in this mount namespace."""
    helper = tmp_path / "mount.virtfs"
    helper.write_text(f"#!/bin/sh\nexec {HELPER[0]} -c '{HELPER[2]}' \"$@\"\n")
    helper.chmod(0o755)
    done = script(
        """
        mount -t tmpfs none /sbin/
        cp "$2" /sbin/
        mount -t virtfs -o noauto,nofail,user,x-systemd.automount,max_virts=2 anything "$1"
        printf 'create 1\\ncreate 2\\n' >"$1/ctl"
        echo create 3 >"$1/ctl" || cat "$1/last_error"
        mount -t virtfs -o colour anything "$1" || echo "status $?"
        mount -t virtfs anything "$1" || echo "status $?"
        $virtfs umount "$1"
        """,
        str(directory),
        str(helper),
    )
    assert done.returncode == 0, done.stderr
    assert 'unknown mount option "colour"' in done.stderr
    assert "2" in done.stdout.splitlines()[0]  # the error names the limit
    assert done.stdout.endswith("status 1\nstatus 32\n")


def test_the_helper_can_pretend(directory: Path) -> None:
    assert run([*HELPER, "none", str(directory), "-f", "-s", "-o", "rw,colour"]).returncode == 0
    assert not mounted(directory)


def test_version_and_help_are_there() -> None:
    assert run([*VIRTFS, "--version"]).stdout == f"virtfs {virtfs.__version__}, compiled loop\n"
    assert run(["env", "VIRTFS_COMPILED=no", *VIRTFS, "--version"]).stdout.endswith(", Python loop\n")
    for verb in ("mount", "umount", "shell"):
        assert f"  virtfs {verb} " in run([*VIRTFS, verb, "--help"]).stdout  # an example of use
