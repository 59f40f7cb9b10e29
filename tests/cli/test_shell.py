"""`virtfs shell`, as an ordinary user and as root."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from .running import ENVIRONMENT, USER, VIRTFS, run, script, terminal, until

SHELL = [*VIRTFS, "shell"]
WHO = pytest.mark.parametrize("who", [USER, []], ids=["user", "root"])


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the private directories are made; empty when nothing is left behind."""
    path = tmp_path / "runtime"
    path.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "XDG_RUNTIME_DIR", str(path))
    return path


@WHO
def test_a_command_has_a_virtfs_to_work_with(runtime: Path, who: list[str]) -> None:
    done = run(
        [
            *(*who, *SHELL, "sh", "-euc"),
            """
            test "$(id -u)" = 0
            test "$PWD" = "$VIRTFS"
            ip link show up dev lo | grep -q LOOPBACK
            echo create 3 up inet 10.0.3.1/24 >ctl
            ping -c1 -W1 10.0.3.2 >ping & dd if=virt3/frame bs=2048 count=1 status=none | xxd -p -l 6
            """.replace(">ping", ">/dev/null"),
        ]
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ffffffffffff\n", "")
    assert not list(runtime.iterdir())
    assert "tap3" not in run(["ip", "link"]).stdout


@WHO
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["--", "sh", "-c", "exit 3"], 3),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_its_exit_status_is_passed_on(runtime: Path, who: list[str], command: list[str], status: int) -> None:
    done = run([*who, *SHELL, *command])
    assert done.returncode == status, done.stderr
    assert not list(runtime.iterdir())


def process_of(command: str) -> list[int]:
    """The processes that run this command."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            text = (directory / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if text == command.replace(" ", "\0").encode() + b"\0":
            found.append(int(directory.name))
    return found


@WHO
def test_what_the_command_left_running_is_gone(runtime: Path, who: list[str]) -> None:
    left = f"sleep 1{os.getpid()}"
    done = run([*who, *SHELL, "sh", "-c", f"setsid {left} & setsid cat virt3/frame & echo create 3 up >ctl"])
    assert done.returncode == 0
    assert not process_of(left)
    assert not list(runtime.iterdir())


@WHO
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_all_of_it_ends_with_the_shell_command(who: list[str], number: signal.Signals) -> None:
    left = f"sleep 2{os.getpid()}"
    with subprocess.Popen(
        [*who, *SHELL, "sh", "-c", f"echo here; setsid {left}"], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(number)
        assert process.stdout.read() == b""  # nobody holds the other end any more
    until(lambda: not process_of(left), "the end of what it started")


INTERACTIVE = ["bash", "--norc", "--noediting"]


def in_the_foreground(command: str) -> bool:
    """Whether such a process runs and has the terminal, proc_pid_stat(5)."""
    for process in process_of(command):
        state, _, group, _, _, foreground, *_ = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if state == "S" and group == foreground:
            return True
    return False


@WHO
def test_job_control_works(who: list[str]) -> None:
    """In a shell in a shell: Ctrl-C ends the command, Ctrl-Z suspends it, the server hears neither."""
    with terminal(INTERACTIVE) as outer:
        outer.expect("ready> ")
        outer.type(" ".join([*who, *SHELL, *INTERACTIVE]) + "; echo left=$?\n")
        outer.expect("ready> ")
        outer.type("echo create 3 up >ctl; cat virt3/frame\n")
        until(lambda: in_the_foreground("cat virt3/frame"), "cat")
        outer.type("\x03")
        outer.expect("ready> ")
        outer.type("echo status=$?; cat virt3/frame\n")
        outer.expect("status=130")
        until(lambda: in_the_foreground("cat virt3/frame"), "cat")
        outer.type("\x1a")
        outer.expect("Stopped")
        outer.type("kill %1; fg; cat version; exit 5\n")
        outer.expect("virtfs 0[.]")
        outer.expect("left=5")


@WHO
def test_ctrl_c_and_ctrl_z_are_the_commands(who: list[str]) -> None:
    with terminal(INTERACTIVE) as outer:
        outer.expect("ready> ")
        outer.type(" ".join([*who, *SHELL]) + " sleep 1000; echo left=$?\n")
        until(lambda: in_the_foreground("sleep 1000"), "sleep")
        outer.type("\x1a")
        outer.expect("Stopped")
        outer.type("fg; echo left=$?\n")
        until(lambda: in_the_foreground("sleep 1000"), "sleep")
        outer.type("\x03")
        outer.expect("left=130")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3", "there is no /dev/fuse: as root, `modprobe fuse`"),
        ("touch $1; chmod 0 $1; mount --bind $1 /dev/net/tun", "as root, `chmod 0666 /dev/net/tun`"),
        (
            "exec unshare --user --map-user=1000 --keep-caps -- sh -c '"
            "echo 0 >/proc/sys/user/max_user_namespaces;"
            "exec setpriv --inh-caps=-all --ambient-caps=-all $virtfs shell true'",
            "this system gave no namespaces: as root, `sysctl user.max_user_namespaces=",
        ),
    ],
)
def test_a_system_that_forbids_it_is_told_what_to_change(tmp_path: Path, change: str, sentence: str) -> None:
    done = script(f"{change}; {' '.join(USER)} $virtfs shell true", str(tmp_path / "node"))
    assert sentence in done.stderr
    assert done.returncode == 1


def test_shell_is_the_users_own() -> None:
    done = run([*USER, *SHELL], SHELL="/bin/pwd")
    assert "/virtfs-" in done.stdout
