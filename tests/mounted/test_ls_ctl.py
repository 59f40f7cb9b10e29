"""virtfs ls and virtfs ctl on a mount: what they print and how they end."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
from harness.fixtures import Alone
from harness.forks import Program
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, PROJECT, Mount, Virt, Virts, frame
from harness.waiting import until

from virtfs.cli import ls
from virtfs.cli.ctl import ctl
from virtfs.cli.denied import why_denied
from virtfs.cli.mounts import Answer
from virtfs.cli.rates import RATES
from virtfs.core.errors import VirtError
from virtfs.fuse import mounttable

VIRTFS = f"PYTHONPATH={PROJECT} {sys.executable} -m virtfs"
NOBODY = f"setpriv --reuid=65534 --clear-groups env {VIRTFS}"


def start(mount: Mount, *words: str, **environment: str) -> Program:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return mount.start(
        sys.executable, "-m", "virtfs", *words, env=ENVIRONMENT | environment, cwd=PROJECT, **pipes
    )  # fmt: skip


def run(mount: Mount, *words: str, **environment: str) -> tuple[int, str, str]:
    """Run virtfs, and return its status, standard output and standard error."""
    program = start(mount, *words, **environment)
    out, said = finished(program)
    assert program.returncode is not None
    return program.returncode, out, said


def about(text: str, directory: str = DIR) -> list[str]:
    """Return the lines of `virtfs ls` about one mount. The mounts of other tests may be listed too."""
    return next(part.splitlines() for part in text.split("\n\n") if part.startswith(f"{directory}  "))


def listed(mount: Mount) -> dict[str, Any]:
    """Return the object of `virtfs ls --json` about the mount."""
    found: list[dict[str, Any]] = json.loads(run(mount, "ls", "--json")[1])["mounts"]
    return next(one for one in found if one["directory"] == DIR)


def test_ls_shows_interfaces_bridges_and_cables(mount: Mount) -> None:
    mount.ctl("create 3 up inet 10.0.3.1/24 owner nobody description the third\ncreate 4 up carrier off\ncreate 5")
    mount.ctl("create bridge0 up inet 10.0.4.1/24 inet6 fd00::1/64 add virt4\ncable 3 5 delay 20ms")
    reader = mount.process().open("virt3/frame", os.O_RDONLY)
    lines = about(mount.sh(f"{NOBODY} ls"))  # everybody can see a mount of root
    reader.close()
    mount.ctl("destroy bridge0")
    assert lines[0] == f"{DIR}  3 interfaces, 1 bridge, 1 cable"
    words = [line.split() for line in lines]
    assert words[1] == ["INTERFACE", "STATE", "OWNER", "READERS", "RX/S", "TX/S", "DROPPED", "HOST"]
    assert words[2][:4] + words[2][7:] == ["virt3", "up", "nobody", "1", "10.0.3.1/24", "#", "the", "third"]
    assert words[3][:3] + words[3][7:] == ["virt4", "nolink", "root", "bridge", "bridge0"]
    assert words[4][:2] == ["virt5", "down"]
    assert ["BRIDGE", "STATE", "MEMBERS", "ADDRESSES"] in words
    assert ["bridge0", "up", "tap4(nolink)", "10.0.4.1/24", "fd00::1/64"] in words
    assert words[-2] == ["CABLE", "STATE", "LOST", "DROPPED", "IMPAIRMENT"]
    assert words[-1] == ["virt3", "-", "virt5", "down", "0", "0", "delay", "20ms"]


def test_ls_names_the_network_namespace_of_a_mount_elsewhere(mount: Mount) -> None:
    assert "netns" not in about(mount.sh(f"{VIRTFS} ls"))[0]
    number = mount.sh("readlink /proc/self/ns/net").strip()
    assert about(mount.sh(f"unshare --net env {VIRTFS} ls"))[0].endswith(f"0 cables  netns {number}")
    mount.sh("ip netns attach home $$")
    assert about(mount.sh(f"unshare --net env {VIRTFS} ls"))[0].endswith("0 cables  netns home")
    mount.sh("ip netns delete home")


def test_ls_shows_the_group_of_an_interface(mount: Mount) -> None:
    mount.ctl("create 3 group daemon\ncreate 4 owner nobody group 4001\ncreate 5 owner nobody")
    owners = [line.split()[2] for line in about(mount.sh(f"{VIRTFS} ls"))[2:5]]
    assert owners == ["root:daemon", "nobody:4001", "nobody"]
    assert [(one["group"], one["group_name"]) for one in listed(mount)["status"]["virts"]] == [
        (1, "daemon"), (4001, None), (0, "root")
    ]  # fmt: skip


def test_ls_shows_what_a_cable_loses(mount: Mount) -> None:
    mount.ctl("create 3 up\ncreate 4 up\ncable 3 4 loss 100%")
    Virt(mount, 3).host_sends(*(frame(100, number) for number in range(10)))
    until(lambda: json.loads(mount.read("status.json"))["cables"][0]["stats"]["out"]["lost"] >= 10, "frames are lost")
    state, lost, dropped = about(run(mount, "ls", "-d", DIR)[1])[-1].split()[3:6]
    assert (state, int(lost) >= 10, dropped) == ("up", True, "0")


def test_ls_shows_which_settings_drop_frames(mount: Mount) -> None:
    mount.ctl("create 3 up impair in loss 50% filter tcp port 80\ncreate 4 up")
    lines = about(run(mount, "ls", "-d", DIR)[1])[2:]
    assert [line.split()[0] for line in lines] == ["virt3", "impair", "filter", "virt4"]
    assert lines[1:3] == ["    impair in loss 50%", "    filter tcp port 80"]


def test_ls_shows_no_members_of_a_lost_bridge(mount: Mount) -> None:
    mount.ctl("create 3 up\ncreate bridge0 up inet 10.0.4.1/24 add virt3")
    mount.sh("ip link delete bridge0")
    until(lambda: json.loads(mount.read("status.json"))["bridges"][0]["lost"], "bridge0 is lost")
    last = about(run(mount, "ls", "-d", DIR)[1])[-1]
    mount.ctl("destroy bridge0")
    assert last.split() == ["bridge0", "lost"]


def test_ls_says_why_a_cable_has_no_connection(mount: Mount) -> None:
    mount.ctl("create 3 up\ncreate 4 up\ncable 3 unix:/run/nobody\ncable 4 unix-listen:/run/here")
    until(lambda: json.loads(mount.read("status.json"))["cables"][0]["socket"]["error"], "the first attempt has failed")
    said = about(run(mount, "ls", "-d", DIR, COLUMNS="60")[1])[-3:]
    assert said[0].split()[:4] == ["virt3", "-", "unix:/run/nobody", "connecting"]
    assert said[1].split()[:4] == ["virt4", "-", "unix-listen:/run/here", "listening"]
    assert said[2] == f"  virt3: cannot connect to unix:/run/nobody: {os.strerror(errno.ENOENT)}"


def test_ls_fits_the_terminal_and_cuts_nothing_in_a_pipe(mount: Mount) -> None:
    mount.ctl("create 3 up inet 10.0.3.1/24 inet6 fd00:3::1/64 description " + "long " * 50)
    assert max(len(line) for line in about(run(mount, "ls", "-d", DIR, COLUMNS="60")[1])) == 60
    assert about(run(mount, "ls", "-d", DIR)[1])[-1].endswith("long " * 49 + "long")


def test_ls_of_an_interface_names_the_mount(mount: Mount) -> None:
    mount.ctl("create 3")
    for path in (f"{DIR}/virt3", f"{DIR}/virt3/../virt3/tap"):
        said = f'virtfs: "{path}" is not a virtfs mount: it is inside the one at "{DIR}"\n'
        assert run(mount, "ls", path) == (1, "", said)


def test_ls_json_has_the_status_and_the_rates(virt: Virt) -> None:
    program = start(virt.mount, "ls", "--json")
    while program.poll() is None:
        virt.host_sends(*(frame(100, number) for number in range(10)))
    found = json.loads(finished(program)[0])["mounts"]
    one = next(one for one in found if one["directory"] == DIR)
    assert one.keys() == {"directory", "source", "error", "status", "rates"}
    assert (one["source"], one["error"]) == ("virtfs", None)
    assert one["status"].keys() == json.loads(virt.mount.read("status.json")).keys()
    assert [each["name"] for each in one["status"]["virts"]] == [virt.name] == list(one["rates"])
    assert tuple(one["rates"][virt.name]) == RATES
    assert one["rates"][virt.name]["rx_dropped"] > 0


def test_ls_of_a_stopped_server_does_not_hang(alone: Alone) -> None:
    mount = alone()
    os.kill(mount.server.pid, signal.SIGSTOP)
    try:
        status, out, _ = run(mount, "ls")
    finally:
        os.kill(mount.server.pid, signal.SIGCONT)
    assert status == 1
    assert "no answer" in about(out)[0]
    assert re.search(rf"pid {mount.server.pid}\b.*\): continue it with kill -CONT", about(out)[0])


def test_ls_of_a_killed_server_fails_and_has_the_remedy(alone: Alone) -> None:
    mount = alone()
    mount.server.kill()
    mount.server.wait()
    for words in (["ls"], ["ls", "-d", DIR], ["ls", "--json"]):
        status, out, _ = run(mount, *words, COLUMNS="60")
        assert status == 1
        assert f"{os.strerror(errno.ENOTCONN)}: the server was killed: mount again with the same options" in out
    subprocess.run(mount.command("umount", "--lazy", DIR), check=True)


def test_a_shell_that_stayed_in_an_old_mount_is_told_to_enter_it_again(alone: Alone) -> None:
    mount = alone()
    ended = f"kill -KILL {mount.server.pid}; umount --lazy {DIR}; while stat . >/dev/null 2>&1; do :; done"
    script = f"cd {DIR}; {ended}; {VIRTFS} ctl create 9"
    done = subprocess.run(mount.command("bash", "-c", script), capture_output=True, text=True, timeout=60, check=False)
    sentence = "the working directory belongs to a mount that has ended: if it is mounted again, enter it with"
    assert (done.returncode, done.stderr) == (1, f'virtfs: {sentence} cd "$PWD"\n')


def test_ls_fails_if_the_status_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ENOBUFS, for example for a user at max_user_memory; a private mount of another user is no failure."""
    there = mounttable.Mounted(1, 0, "0:1", DIR, mounttable.VIRTFS, "virtfs", ())
    monkeypatch.setattr(ls, "visible", lambda: [there])
    monkeypatch.setattr(ls, "visible_at", lambda _: there)
    for number, directory, status in ((errno.ENOBUFS, None, 1), (errno.EACCES, None, 0), (errno.EACCES, DIR, 1)):
        answer = Answer(b"", VirtError(number, os.strerror(number)))
        monkeypatch.setattr(ls, "ask", lambda *_, answer=answer: [answer])
        assert ls.ls(directory, as_json=False) == status
        assert capsys.readouterr().out == f"{DIR}  {os.strerror(number)}\n"


def test_ctl_writes_the_line(mount: Mount) -> None:
    assert run(mount, "ctl", "-d", DIR, "create", "3", "up", "mtu", "1400") == (0, "", "")
    assert run(mount, "ctl", "-d", DIR, "virt3 description a  note\ncreate 4") == (0, "", "")
    assert run(mount, "ctl", "-d", f"{DIR}/virt3", "-strict", "mtu", "1300") == (0, "", "")
    assert run(mount, "ctl", "virt3", "strict", VIRTFS=DIR) == (0, "", "")
    files = ("mtu", "description", "strict", "up")
    assert [mount.read(f"virt3/{file}") for file in files] == ["1300", "a  note", "1", "1"]
    assert mount.sh(f"{VIRTFS} ctl destroy 4; ls -d virt*").split() == ["virt3"]  # the mount of the working directory


def test_ctl_says_why_a_line_is_refused(mount: Mount) -> None:
    said = run(mount, "ctl", "-d", DIR, "create 4\ncreate 4")
    assert said == (1, "", 'virtfs: line 2: "create 4": "virt4" already exists\n')
    file = "to run the lines of a file, use cat FILE >DIR/ctl, where DIR is the mount"
    with pytest.raises(VirtError, match=f'ctl needs a line, as in "virtfs ctl create 3 up"; {file}'):
        ctl(None, ())


def test_ctl_warns_each_time(mount: Mount) -> None:
    """A warning is printed at each line that causes it, and not at others, even if it is the same as the last error."""
    mount.ctl("create bridge1 up\ncreate 3 up inet 10.0.3.1/24")
    for _ in range(2):
        status, _, said = run(mount, "ctl", "-d", DIR, "bridge1", "add", "virt3")
        assert (status, said.split(":")[1]) == (0, " warning")
        assert said.removeprefix("virtfs: ").strip() == mount.read("last_error")
        set_at = mount.sh("stat -c %.9Y last_error")
        assert run(mount, "ctl", "-d", DIR, "bridge1", "delete", "virt3") == (0, "", "")
        assert mount.sh("stat -c %.9Y last_error") == set_at
    nobodys = mount.sh("setpriv --reuid=65534 --clear-groups stat -c %.9Y last_error")
    assert float(nobodys) < float(set_at), "the time is each user's own"
    mount.ctl("destroy bridge1")


def test_ctl_of_an_owner(virt: Virt) -> None:
    """A line about the owner's interface goes to the ctl of the interface, since only root may use the mount's."""
    mount = virt.mount
    virt.set("owner nobody")
    mount.sh(f"{NOBODY} ctl {virt.name} mtu 1300")
    assert virt.read("mtu") == "1300"
    refused = mount.sh(f"{NOBODY} ctl {virt.name} inet 10.9.9.1/24 2>&1 || echo status $?").splitlines()
    assert refused == ['virtfs: "inet 10.9.9.1/24": only root may use "inet"', "status 1"]
    refused = mount.sh(f"{NOBODY} ctl create 9 2>&1 || echo status $?").splitlines()
    only = 'only root may use this command; the owner of virtN may use "virtN VERB ..."'
    assert refused == [f'virtfs: "create 9": {only}', "status 1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ctl virt9 up", '"virt9 up": virt9 belongs to root, and its mode is 0600'),
        ("ctl virt8 up", '"virt8 up": there is no virt8'),
        (f"ctl -d {DIR}/virt9 up", '"up": virt9 belongs to root, and its mode is 0600'),
        ("ctl virt10 up", '"virt10 up": virt10 belongs to root:daemon, and its mode is 0660'),
        (f"ctl -d {DIR}/bridge/bridge0 up", '"up": only root may do this'),
        ("exec 9 -- true", "virt9/fd: the mode 0600 does not let user 65534 use it"),
    ],
)
def test_a_user_who_may_not_is_told_who_may(mount: Mount, words: str, said: str) -> None:
    mount.ctl("ensure 9\nensure 10 group daemon\nensure bridge0")
    refused = mount.sh(f"VIRTFS={DIR} {NOBODY} {words} 2>&1 || echo status $?").splitlines()
    mount.ctl("destroy bridge0")
    assert refused[-1] == "status 1"
    assert refused[0].removeprefix("virtfs: ").endswith(said)


def test_a_user_whom_fuse_keeps_out_is_told_why() -> None:
    """Without allow_other, a mount is for the user who made it."""
    table = b"40 1 0:50 / /elsewhere rw shared:1 - fuse.virtfs virtfs rw,user_id=4001,group_id=4001\n"
    (mounted,) = mounttable.parse(table)
    with mock.patch("virtfs.fuse.mounttable.mounts", return_value=[mounted]):
        assert why_denied("/elsewhere/status.json") == (
            "only user 4001 may use this mount, because it was made without allow_other"
        )
        assert why_denied("/somewhere/else") == ""


def test_ctl_of_a_stopped_server_says_so_and_ctrl_c_ends_it(alone: Alone) -> None:
    mount = alone()
    os.kill(mount.server.pid, signal.SIGSTOP)
    try:
        program = start(mount, "ctl", "-d", DIR, "create", "3")
        assert program.stderr is not None
        assert f"pid {mount.server.pid}" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        finished(program)
    finally:
        os.kill(mount.server.pid, signal.SIGCONT)
    assert program.returncode == 130


def test_nothing_is_counted_by_a_listing(virts: Virts) -> None:
    """ls takes no frame and opens no stream."""
    virt = virts("up backlog 4")
    virt.host_sends(frame(60, 1))
    events = virt.mount.process().open("events", os.O_RDONLY | os.O_NONBLOCK)
    assert listed(virt.mount)["status"]["virts"][0]["readers"] == 0
    assert virt.open().read() == frame(60, 1)
    assert "file=frame" in events.read().decode().split("\n")[0]
