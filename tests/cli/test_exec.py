"""virtfs exec: a program runs with the tap of an interface."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from harness.forks import Fork
from harness.places import DIR, finished
from harness.process import fails
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import until

from virtfs.cli import execute, main
from virtfs.core.errors import VirtError
from virtfs.fuse.mounttable import VIRTFS, Mounted

PIPE = subprocess.PIPE
ROOT = str(Path(__file__).parents[2])
# Prints one frame from descriptor FD, and sends it back.
ECHO = "import os, sys; fd = int(sys.argv[1]); frame = os.read(fd, 4096); print(frame.hex()); os.write(fd, frame)"
ATTACH = (
    "import fcntl, os, struct; fd = os.open('/dev/net/tun', os.O_RDWR);"
    "fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH22x', b'%s', 0x1002));"
    "frame = os.read(fd, 4096); print(frame.hex()); os.write(fd, frame)"
)


def run(virt: Virt, *words: str) -> "subprocess.Popen[str]":
    """Start `virtfs exec` as the user daemon, from a copy of this checkout that every user can read."""
    mount = virt.mount
    mount.sh(f"mountpoint -q /mnt/checkout || {{ mkdir -p /mnt/checkout; mount --rbind {ROOT} /mnt/checkout; }}")
    script = 'cd /mnt/virt && PYTHONPATH=/mnt/checkout exec "$0" -m virtfs exec "$@"'
    command = ["sh", "-c", script, sys.executable, str(virt.unit), *words]
    return mount.start(*command, uid=1, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE)


def fork(virt: Virt, *words: str) -> Fork:
    """Start `virtfs exec` as root."""
    return virt.mount.fork("virtfs", "exec", f"/mnt/virt/{virt.name}", *words, stderr=PIPE)


def is_back(virt: Virt) -> None:
    until(lambda: " fd " not in virt.read("clients"), "the tap is back")


def echoes(virt: Virt, program: "subprocess.Popen[str]", header: str = "") -> None:
    """Send a frame to a program that runs ECHO or ATTACH, and check what it prints and sends."""
    until(lambda: " fd " in virt.read("clients"), "the program has the tap")
    until(lambda: virt.read("tap/carrier") == "1", "the tap has a carrier")
    virt.host_sends(frame(99))
    assert finished(program) == (f"{header}{frame(99).hex()}\n", "")
    assert program.returncode == 0
    assert virt.host_gets() == frame(99)
    is_back(virt)


def test_the_owner_runs_a_program(virts: Virts) -> None:
    virt = virts("up owner daemon")
    echoes(virt, run(virt, "--fd", "9", "--vnet-hdr", "--", sys.executable, "-c", ECHO, "9"), "00" * 10)


def test_the_owner_attaches_to_the_tap(virts: Virts) -> None:
    virt = virts("up owner daemon")
    echoes(virt, run(virt, "--tun", "--", sys.executable, "-c", ATTACH % virt.tap))


def test_the_tap_has_one_queue(virts: Virts) -> None:
    virt = virts("up owner daemon")
    several = ATTACH.replace("0x1002", "0x1102")  # IFF_MULTI_QUEUE
    output, complaint = finished(run(virt, "--tun", "--", sys.executable, "-c", several % virt.tap))
    assert (output, complaint.splitlines()[-1]) == ("", "OSError: [Errno 22] Invalid argument")


def test_another_user(virt: Virt) -> None:
    program = run(virt, "--", "true")
    assert finished(program) == ("", f"virtfs: exec: {virt.name}/fd: the mode 0600 does not let user 1 use it\n")
    assert program.returncode == 1


@pytest.mark.parametrize(
    ("options", "redirection", "file"),
    [("", "3<>{}/frame", "frame"), ("", "4<{}/hex", "hex"), ("--tun", "5>{}/stream", "stream")],
)
def test_a_redirection_of_the_command_itself(virt: Virt, options: str, redirection: str, file: str) -> None:
    """The line for a program on a frame file, with `virtfs exec` put before it."""
    virtfs = f"exec {sys.executable} -m virtfs exec {options}"
    line = f"{virtfs} /mnt/virt/{virt.name} -- true {redirection.format(f'/mnt/virt/{virt.name}')}"
    said = f"virtfs: exec: {virt.name}/fd: this program has {virt.name}/{file} open itself: leave out that redirection"
    assert finished(virt.mount.start("sh", "-c", line, stdout=PIPE, stderr=PIPE)) == ("", f"{said} to get the tap\n")


def test_the_status_is_that_of_the_command(virt: Virt) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", -signal.SIGKILL), ("kill -PIPE $$", -signal.SIGPIPE)):
        program = fork(virt, "--", "sh", "-c", script)
        finished(program)
        assert program.returncode == status
        is_back(virt)
    for path, status, why in (
        ("/nonexistent", 127, "No such file or directory"),
        ("nonexistent", 127, "command not found"),
        ("/", 126, "Permission denied"),
    ):
        program = fork(virt, "--", path)
        assert finished(program)[1] == f'virtfs: exec: "{path}": {why}\n'
        assert program.returncode == status


def test_the_command_inherits_only_the_tap_and_the_connection(virt: Virt) -> None:
    """It has the tap as descriptor 3, and takes the place of virtfs."""
    program = fork(virt, "--", "sleep", "100")
    without = virt.mount.fork("virtfs", "exec", "/", "--", "true", stderr=PIPE)
    finished(without)
    until(lambda: f"{program.pid} sleep" in " ".join(virt.read("clients").split()), "sleep has the tap")
    links = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{program.pid}/fd").iterdir()}
    assert links[3] == "/dev/net/tun"
    assert Counter(link.partition(":")[0] for link in links.values())["/dev/net/tun"] == 1
    assert [number for number in links if number > 3] == [100]
    program.send_signal(signal.SIGKILL)
    finished(program)
    is_back(virt)


def test_a_child_that_outlives_the_command(virt: Virt) -> None:
    """A refusal leads to `clients`, which shows the child. From then on, refusals name it."""
    program = fork(virt, "--", "sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $! >&2")
    child = int(finished(program)[1])
    for who in (f"process {program.pid} has ended, but a process that it started", f"process {child}"):
        with fails(errno.EBUSY):
            virt.set("impair loss 1%")
        assert virt.mount.read("last_error").endswith(f": {virt.name}: {who} has the tap (see clients)")
        assert [f"{child}", "sleep", "fd"] in [line.split()[:3] for line in virt.read("clients").splitlines()]
    os.kill(child, signal.SIGKILL)
    is_back(virt)


def test_the_command_finds_the_directory_of_each_descriptor(mount: Mount) -> None:
    """One variable for each descriptor, so exec can be nested. With --tun there is none."""
    mount.ctl("create 3 up\ncreate 4 up")
    first, env = ("virtfs", "exec", f"{DIR}/virt3", "--"), ("sh", "-c", "env >&2")
    nested = (sys.executable, "-m", "virtfs", "exec", f"{DIR}/virt4/../virt4", "--fd", "7", "--vnet-hdr", "--", *env)
    program = mount.fork(*first, *nested, stderr=PIPE)
    told = [line for line in finished(program)[1].splitlines() if line.startswith("VIRTFS_FD")]
    assert sorted(told) == [f"VIRTFS_FD3={DIR}/virt3", f"VIRTFS_FD7={DIR}/virt4"]
    without = mount.fork("virtfs", "exec", f"{DIR}/virt3", "--tun", "--", *env, stderr=PIPE)
    said = finished(without)[1]
    assert "VIRTFS_FD" not in said
    assert "PATH=" in said


def test_a_mount_at_a_long_path(virt: Virt) -> None:
    """The path of a Unix socket has at most 107 bytes."""
    long = f"/mnt/{'x' * 120}"
    virt.mount.sh(f"mkdir {long} && mount --bind /mnt/virt {long}")
    program = virt.mount.fork("virtfs", "exec", f"{long}/{virt.name}", "--", "true", stderr=PIPE)
    said = finished(program)
    virt.mount.sh(f"umount {long} && rmdir {long}")
    assert (program.returncode, said) == (0, ("", ""))


def test_a_second_tap_needs_a_number_of_its_own(mount: Mount) -> None:
    """Otherwise it would replace the first one, and the program would have one interface less than it expects."""
    mount.ctl("create 3 up\ncreate 4 up")
    second = f"{sys.executable} -m virtfs exec {DIR}/virt4 -- true"
    for line, said in (
        (second, "virtfs: exec: descriptor 3 is already the tap of virt3: give another number, as in --fd 4\n"),
        (f"exec 3<&-; {second}", ""),
    ):
        program = mount.fork("virtfs", "exec", f"{DIR}/virt3", "--", "sh", "-c", line, stderr=PIPE)
        assert finished(program)[1] == said


def test_an_owner_who_may_not_open_dev_net_tun(virts: Virts, tmp_path: Path) -> None:
    virt = virts("up owner daemon")
    finished(run(virt, "--help"))  # shows the checkout to every user
    hide = "touch $1; chmod 0600 $1; mount --bind $1 /dev/net/tun; cd /mnt/virt"
    as_daemon = "PYTHONPATH=/mnt/checkout exec setpriv --reuid 1 --regid 1 --clear-groups"
    script = f'{hide}; {as_daemon} "$0" -m virtfs exec {virt.unit} --tun -- true'
    words = ["unshare", "--mount", "sh", "-c", script, sys.executable, str(tmp_path / "tun")]
    program = virt.mount.start(*words, stdout=PIPE, stderr=PIPE)
    said = "no permission to open /dev/net/tun (mode 0600): as root, run `chmod 0666 /dev/net/tun`"
    assert finished(program) == ("", f"virtfs: exec: {said}\n")
    assert program.returncode == 1


COMMAND_MISSING, INTERFACE_MISSING = "put the command after --", "name the interface before --"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["3"], COMMAND_MISSING),
        (["3", "true"], COMMAND_MISSING),
        (["3", "--fd", "4"], COMMAND_MISSING),
        (["--", "true"], INTERFACE_MISSING),
        (["--tun", "--", "true"], INTERFACE_MISSING),
        ([], INTERFACE_MISSING),
        (["3", "--tun", "--fd", "4", "--", "true"], "leave out --fd"),
        (["3", "--tun", "--vnet-hdr", "--", "true"], "leave out --vnet-hdr"),
    ],
)
def test_words_that_do_not_fit_together(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["exec", *words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: virtfs exec N ")
    assert sentence in said


LIMIT, _ = resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.mark.parametrize("number", [-1, LIMIT - 1, LIMIT, 10**20])
def test_a_number_that_no_descriptor_can_have(number: int) -> None:
    """It is refused before the server is asked for the tap."""
    with pytest.raises(VirtError) as caught:
        execute.execute("/nowhere", ["true"], number=number, header=False, tun=False)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror.startswith(f"exec: --fd {number}: ")


def at(directory: Path) -> Mounted:
    return Mounted(1, 0, "0:1", str(directory), VIRTFS, "virtfs", ())


def test_which_interface_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is looked up in $VIRTFS, then in the working directory, then in all mounts."""
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one / "virt3", other / "virt3", other / "virt4"):
        directory.mkdir(parents=True)
        (directory / "fd").symlink_to("/nowhere")
    monkeypatch.setattr(execute, "mounts", lambda: [at(one), at(other)])
    monkeypatch.delenv("VIRTFS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert execute.find("virt4") == execute.find("4") == execute.find(str(other / "virt4")) == other / "virt4"
    for word, sentence in (
        ("3", f"several mounts have virt3: give a path, {one}/virt3 or {other}/virt3"),
        ("999", "no virtfs mount has virt999"),
        ("x", '"x" is not a number, virtN or a path'),
        ("03", '"03" is not a number'),
        (str(one), "is not the directory of an interface"),
    ):
        with pytest.raises(VirtError) as caught:
            execute.find(word)
        assert sentence in caught.value.strerror
    monkeypatch.chdir(other / "virt4")
    assert execute.find("3") == other / "virt3"
    monkeypatch.setenv("VIRTFS", str(one))
    assert execute.find("3") == one / "virt3"
