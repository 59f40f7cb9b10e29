"""Lines that cannot be replayed, and a state file that cannot be written: what users see, and how it ends."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.lasting import Lasting, LastingOnes
from harness.places import DIR
from harness.process import File, fails
from harness.serving import ENVIRONMENT, PROJECT
from harness.waiting import until

STATE = "/mnt/kept/lab/state"
OPTION = f"state={STATE}"
LATE = "create 5 netns late inet 10.0.5.1/24 up"


def begun(lasting: LastingOnes, text: str = "") -> Lasting:
    """Return a mount whose state file has this text, in a directory of its own that holds 64 KiB."""
    mount = lasting()
    mount.end()
    mount.sh("mkdir /mnt/kept && mount -t tmpfs -o size=64k tmpfs /mnt/kept && mkdir /mnt/kept/lab")
    mount.root.call(Path.write_text, Path(STATE), text)
    mount.again(OPTION)
    return mount


def state(mount: Lasting) -> dict[str, Any]:
    """Return the object about the state file in status.json."""
    told: dict[str, Any] = json.loads(mount.read("status.json"))["state"]
    return told


def gauges(mount: Lasting) -> dict[str, float]:
    """Return the metrics of the state file."""
    lines = (line for line in mount.read("metrics").splitlines() if line.startswith("virtfs_state_"))
    pairs = ((line.partition("{")[0], line.rpartition(" ")[2]) for line in lines)
    return {name.removeprefix("virtfs_state_"): float(value) for name, value in pairs}


def news(events: File) -> list[str]:
    """Return the events about the state file that have happened since the last call."""
    lines = []
    while events.poll():
        lines += events.read().decode().splitlines()
    return [" ".join([name, *keys]) for _, name, about, *keys in map(str.split, lines) if about == "state"]


def test_retry_runs_the_lines_that_have_failed(lasting: LastingOnes) -> None:
    text = f"# made: tap5 tap9\n{LATE}\nvirt5 filter arp\ncreate 6 netns later persist\nfrobnicate\n"
    mount = begun(lasting, text)
    failed = state(mount)["failed_lines"]
    assert [one["line"] for one in failed] == [LATE, "virt5 filter arp", "create 6 netns later persist", "frobnicate"]
    assert failed[0]["reason"] == 'there is no network namespace "late"'
    assert gauges(mount)["failed_lines"] == 4
    assert mount.read("ctl").startswith("# made: tap5\n"), "what virtfs made is remembered for lines that failed"
    events = mount.root.open("events", os.O_RDONLY)
    mount.ip("netns add late")
    with fails(errno.ENXIO):
        mount.ctl("retry")
    assert mount.read("last_error") == (
        '"retry": 2 of 4 lines failed again; first error: "create 6 netns later persist": '
        'there is no network namespace "later"'
    )
    assert news(events) == ["retry done=2 failed=2"]
    assert (mount.read("virt5/tap/netns"), mount.read("virt5/filter"), mount.read("virt5/up")) == ("late", "arp", "1")
    assert [one["line"] for one in state(mount)["failed_lines"]] == ["create 6 netns later persist", "frobnicate"]
    assert mount.sh(f"cat {STATE}") == mount.read("ctl") + "\n"
    mount.ip("netns add later")
    with fails(errno.EINVAL):
        mount.ctl("retry # again")
    assert mount.read("virt6/tap/netns") == "later"
    assert [one["line"] for one in state(mount)["failed_lines"]] == ["frobnicate"]
    mount.ctl("destroy 6")


def test_the_log_has_the_end_of_a_trouble(lasting: LastingOnes) -> None:
    """Each error or warning about a line, an interface or a bridge is followed by a line when the cause is gone."""
    mount = begun(lasting, f"{LATE}\ncreate 6 netns later\ncreate 4 up\ncreate bridge0 up\n")

    def logged(text: str) -> None:
        until(lambda: any(text in line for line in mount.log), f"the log has {text}")

    logged(f'error: state file, line 1: "{LATE}": there is no network namespace "late"')
    mount.ip("netns add late")
    with fails(errno.ENXIO):
        mount.ctl("retry")
    logged(f'virtfs: retry: "{LATE}" is carried out')
    mount.ctl("create 6")
    logged('virtfs: a newer command replaces the line that was not replayed, "create 6 netns later"')
    mount.ip("link del tap4")
    logged("warning: virt4 is lost")
    mount.ctl("ensure 4")
    logged("virtfs: virt4, which was lost, is made again")
    mount.ip("link del bridge0")
    logged("warning: bridge0 is lost")
    mount.ctl("ensure bridge0")
    logged("virtfs: bridge0, which was lost, is made again")
    mount.ip("link set bridge0 name lan")
    logged('it is "lan" now, and virtfs leaves it alone')
    mount.ip("link set lan name bridge0")
    logged("virtfs: bridge0, which was lost, has its name again")
    mount.ctl("destroy 5")


def test_retry_without_failed_lines_does_nothing(lasting: LastingOnes) -> None:
    mount = begun(lasting, "create 3 owner 4001")
    before = mount.read("ctl")
    mount.ctl("retry")
    assert mount.read("ctl") == before
    with fails(errno.EINVAL):
        mount.ctl("retry 3")
    assert mount.refused("echo retry >virt3/ctl", uid=4001)
    assert mount.sh("cat last_error", uid=4001).startswith('"retry": unknown verb')


def test_destroy_drops_lines_that_have_failed(lasting: LastingOnes) -> None:
    mount = begun(lasting, f"create bridge0 add nosuch\n{LATE}\nvirt5 filter arp\ncreate 3\n")
    assert len(state(mount)["failed_lines"]) == 3
    mount.ctl("destroy 5")
    assert [one["line"] for one in state(mount)["failed_lines"]] == ["create bridge0 add nosuch"]
    mount.ctl("destroy bridge0")
    assert state(mount)["failed_lines"] == []
    for line in ("destroy 5", "destroy bridge0"):
        with fails(errno.ENXIO):
            mount.ctl(line)
    assert mount.units() == ["virt3"]


def test_a_line_that_cannot_be_parsed_goes_as_the_others(lasting: LastingOnes) -> None:
    text = (
        "create 3 frobnicate\nvirt4 frobnicate\ncable 5 6 frobnicate\ncreate bridge0 frobnicate\nfrobnicate\ncreate 7\n"
        "craete virt8 up\n"
    )
    mount = begun(lasting, text)
    assert gauges(mount)["failed_lines"] == 6
    for line in ("destroy 3", "create 4", "destroy 6", "create bridge0", "destroy 8"):
        before = gauges(mount)["failed_lines"]
        mount.ctl(line)
        assert gauges(mount)["failed_lines"] == before - 1, line
    with fails(errno.ENXIO):
        mount.ctl("destroy 3")
    assert [one["line"] for one in state(mount)["failed_lines"]] == ["frobnicate"]
    mount.ctl("destroy all")
    assert state(mount)["failed_lines"] == []


def test_destroy_all_leaves_nothing(lasting: LastingOnes) -> None:
    mount = begun(lasting, f"create bridge0 up add nosuch\n{LATE}\nfrobnicate\n")
    mount.ctl("create 3 up persist\ncreate 4 owner 4001\ncable 3 4\ncreate bridge1 up add virt3\ncheck destroy all")
    clone = mount.root.open("clone", os.O_RDWR)
    assert sorted(mount.units()) == ["virt0", "virt3", "virt4"]
    assert mount.refused("echo destroy all >virt4/ctl", uid=4001)
    assert len(mount.units()) == 3
    mount.ctl("create 7\ndestroy 7\ndestroy all\ncreate 7\ndestroy all\ndestroy all")
    assert (mount.units(), mount.read("ctl"), mount.sh(f"cat {STATE}"), mount.links()) == ([], "", "", ["lo"])
    assert state(mount)["failed_lines"] == []
    clone.close()


def test_without_a_state_file_there_is_nothing_to_tell(lasting: LastingOnes) -> None:
    mount = lasting()
    mount.ctl("retry")
    assert state(mount) is None
    assert gauges(mount) == {}


def umount(mount: Lasting, *options: str) -> tuple[int, str]:
    """Run `virtfs umount`, and return its exit status and what it complains of."""
    words = [sys.executable, "-m", "virtfs", "umount", *options, DIR]
    done = subprocess.run(
        mount.command(*words), env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_umount_refuses_to_lose_changes(lasting: LastingOnes) -> None:
    """A script that unmounts before an upgrade stops here, and the server goes on and saves when it can."""
    mount = begun(lasting)
    mount.ctl("create 3")
    mount.sh("mount -o remount,ro /mnt/kept")
    mount.ctl("create 4")
    assert umount(mount) == (
        1,
        f'virtfs: "{DIR}" has changes that are not saved: cannot save the state file "{STATE}": Read-only file system: '
        f'mend this, and the server saves within two seconds; "virtfs umount --force {DIR}" gives them up\n',
    )
    assert mount.units() == ["virt3", "virt4"]
    mount.sh("mount -o remount,rw /mnt/kept")
    until(lambda: state(mount)["saved"], "the state is saved")
    assert umount(mount) == (0, "")
    assert mount.server.wait(60) == 0
    assert "not saved" not in "".join(mount.log)
    mount.again(OPTION)
    assert mount.units() == ["virt3", "virt4"]


def test_umount_force_gives_changes_up(lasting: LastingOnes) -> None:
    mount = begun(lasting)
    mount.ctl("create 3")
    mount.sh("mount -o remount,ro /mnt/kept")
    mount.ctl("create 4")
    sentence = f'cannot save the state file "{STATE}": Read-only file system'
    warning = f'virtfs: "{DIR}": warning: the last changes are not saved: {sentence}\n'
    assert umount(mount, "--force") == (0, warning)
    assert mount.server.wait(60) == 0
    until(lambda: "the mount ends, and its changes since" in "".join(mount.log), "the log tells it")
    mount.sh("mount -o remount,rw /mnt/kept")
    mount.again(OPTION)
    assert mount.units() == ["virt3"]
    assert umount(mount, "--force") == (0, "")
    assert mount.server.wait(60) == 0


def test_ctl_warns_of_each_command_that_is_not_saved(lasting: LastingOnes) -> None:
    """Even if the warning is the same as the last one, before which the state was saved again."""
    mount = begun(lasting)
    virtfs = f"PYTHONPATH={PROJECT} {sys.executable} -m virtfs"
    sentence = f'cannot save the state file "{STATE}": No such file or directory'
    warning = f"virtfs: the command took effect, but virtfs {sentence}"
    for units in ((1, 2), (3,)):
        mount.sh("rm -r /mnt/kept/lab")
        for unit in units:
            assert mount.sh(f"{virtfs} ctl -d {DIR} create {unit} 2>&1").strip() == warning
        mount.sh("mkdir /mnt/kept/lab")
        until(lambda: state(mount)["saved"], "the state is saved")
    assert mount.sh(f"{virtfs} ctl -d {DIR} create 4 2>&1") == ""


def test_a_state_that_cannot_be_saved_does_not_hide_other_warnings(lasting: LastingOnes) -> None:
    mount = begun(lasting)
    mount.ctl("create 1\ncreate 2\ncable 1 2")
    mount.sh("rm -r /mnt/kept/lab")
    unsaved = f'the command took effect, but virtfs cannot save the state file "{STATE}": No such file or directory'
    mount.ctl("virt1 mtu 9000")
    assert mount.read("last_error").startswith(f"{unsaved}; warning: virt1 has mtu 9000, virt2 at the other end of its")
    mount.ctl("virt1 backlog 4")
    assert mount.read("last_error") == unsaved, "the warning was about the line before"


def test_a_change_that_is_undone_while_it_cannot_be_saved(lasting: LastingOnes) -> None:
    """The state is saved again as soon as that is possible, although it is the one that was saved last."""
    mount = begun(lasting)
    mount.ctl("create 3")
    before = mount.sh(f"cat {STATE}")
    mount.sh("rm -r /mnt/kept/lab")
    mount.ctl("create 4")
    mount.ctl("destroy 4")
    mount.sh("mkdir /mnt/kept/lab")
    until(lambda: state(mount)["saved"], "the state is saved")
    assert mount.sh(f"cat {STATE}") == before


TROUBLE = {
    "full": ("head -c 100000 /dev/zero >/mnt/kept/fill || true", "rm /mnt/kept/fill", errno.ENOSPC),
    "read-only": ("mount -o remount,ro /mnt/kept", "mount -o remount,rw /mnt/kept", errno.EROFS),
    "removed": ("rm -r /mnt/kept/lab", "mkdir /mnt/kept/lab", errno.ENOENT),
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_a_state_that_cannot_be_saved_is_told(lasting: LastingOnes, kind: str) -> None:
    """The command takes effect and write(2) succeeds. The writer, status.json, metrics and events have the reason."""
    begin, end, number = TROUBLE[kind]
    mount = begun(lasting)
    mount.ctl("create 3 up owner 4001")
    assert (state(mount)["saved"], state(mount)["error"], state(mount)["unsaved_since"]) == (True, None, None)
    events = mount.root.open("events", os.O_RDONLY)
    mount.sh(begin)
    mount.ctl("create 4 up description " + "x" * 200)
    assert mount.read("virt4/up") == "1"
    sentence = f'cannot save the state file "{STATE}": {os.strerror(number)}'
    assert mount.read("last_error") == f"the command took effect, but virtfs {sentence}"
    mount.sh("echo 1400 >virt3/mtu; cat virt3/mtu", uid=4001)
    assert sentence in mount.sh("cat last_error", uid=4001)
    told = state(mount)
    assert (told["file"], told["saved"], told["error"]) == (STATE, False, sentence)
    assert gauges(mount) == {
        "saved": 0,
        "unsaved_since_seconds": pytest.approx(told["unsaved_since"]),
        "failed_lines": 0,
    }
    assert news(events) == [f"unsaved errno={errno.errorcode[number]}"]
    with fails(errno.ENXIO):
        mount.ctl("virt9 up")
    assert "virt9" in mount.read("last_error"), "the error of a refused command comes first"
    mount.sh(end)
    until(lambda: state(mount)["saved"], "the state is saved without a further command")
    assert mount.sh(f"cat {STATE}") == mount.read("ctl") + "\n"
    assert news(events) == ["saved"]
    until(lambda: f'the state file "{STATE}" is saved again' in "".join(mount.log), "the log tells it")
    assert gauges(mount) == {"saved": 1, "unsaved_since_seconds": 0, "failed_lines": 0}
