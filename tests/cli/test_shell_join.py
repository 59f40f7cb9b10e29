"""`virtfs shell --join`: a second window on a laboratory, as an ordinary user and as root."""

import signal
from pathlib import Path

import pytest
from harness.running import VIRTFS, run, terminal, until
from harness.users import HIS_VIRTFS, MANY_IDS, ONE_ID

from .test_shell import in_the_foreground

# Without other processes, the test sees no shells of other tests.
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
# `start NAME` starts a shell and stores its mount point in $NAME. The shells run until a program opens the FIFO `end`.
FIRST = """
virtfs() { %s "$@"; }
start() {
    mkfifo "$1"
    virtfs shell sh -c "echo create 3 up >ctl; echo \\$VIRTFS >$HOME/$1; cat $HOME/end" &
    read -r "$1" <"$1"
}
cd; mkfifo end
"""


def joining(user: list[str], tmp_path: Path, text: str) -> list[str]:
    """Run a bash script with the function `start`, and return the lines that it prints."""
    first = FIRST % " ".join(HIS_VIRTFS if user else VIRTFS)
    done = run([*ALONE, *(user or ["env", f"HOME={tmp_path}"]), "bash", "-euc", f"{first}\n{text}"], 55)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_second_window_has_the_same_laboratory(tmp_path: Path) -> None:
    before, here, status, missing, script, refused = joining(
        ONE_ID,
        tmp_path,
        """
        start a
        virtfs shell --join sh -c 'id -u; pwd; ip -o link show tap3 | cut -d: -f2; echo 1400 >virt3/mtu' | xargs
        virtfs shell --join -- pwd
        virtfs shell --join -d "$a" sh -c 'exit 7' || echo $?
        virtfs shell --join nosuch 2>&1 || :
        echo pwd >lesson.sh; chmod +x lesson.sh
        virtfs shell --join ./lesson.sh 2>&1 || echo $? >&2
        virtfs shell --join -d /nowhere true 2>&1 || :
        : >end; wait
        """,
    )
    assert before.split()[0] == "0"
    assert before.split()[2] == "tap3"
    assert Path(before.split()[1]).name.startswith("virtfs-")
    assert here == "/mnt/home"
    assert status == "7"
    assert missing == 'virtfs: "nosuch": command not found'
    assert script == 'virtfs: "/mnt/home/lesson.sh": Exec format error: it has no #! line, such as #!/bin/bash'
    assert refused == 'virtfs: no virtfs shell of this user has the mount "/nowhere"'


def test_a_shell_without_its_server_says_what_to_type(tmp_path: Path) -> None:
    """The first line is from the shell itself. The other lines are from the second window."""
    first, ctl, ended, version, gone = joining(
        ONE_ID,
        tmp_path,
        f"""
        start a 2>&1
        virtfs shell --join sh -c 'kill -9 $(pgrep -P1 | head -1)'
        inside="virtfs shell --join -- {" ".join(HIS_VIRTFS)}"
        $inside ctl create 4 2>&1 || :
        virtfs shell --join pwd 2>&1 || :
        $inside mount "$a"
        virtfs shell --join cat version
        $inside umount "$a"
        virtfs shell --join pwd 2>&1 || :
        : >end; wait
        """,
    )
    remedy = '`virtfs mount "$VIRTFS"; cd "$VIRTFS"`'
    assert first == f"virtfs: the virtfs server has exited; for a new one, without interfaces, type {remedy}"
    assert ctl.endswith(f'/ctl": Transport endpoint is not connected: the server has ended: type {remedy}')
    assert ended.endswith(f'": Transport endpoint is not connected: the server has ended: type {remedy}')
    assert version.startswith("virtfs ")
    assert gone.endswith(f"has no mount: type {remedy} in its window")


@pytest.mark.parametrize(
    ("first", "number"), [(":", signal.SIGHUP), ("trap '' HUP", signal.SIGKILL)], ids=["SIGHUP", "SIGKILL"]
)
@pytest.mark.parametrize("ending", [": >end", "kill $(ps -o pid= --ppid $shell)"], ids=["exit", "killed"])
def test_what_joined_ends_with_the_shell(tmp_path: Path, first: str, number: signal.Signals, ending: str) -> None:
    """SIGHUP lets a full-screen program restore its terminal. A program that ignores it is killed."""
    said, *_, status = joining(  # bash prints the signal, too
        ONE_ID,
        tmp_path,
        f"""
        start a; shell=$!
        mkfifo joined
        (virtfs shell --join sh -c "{first}; echo >$HOME/joined; exec sleep 1000" 2>&1 || echo $?) &
        cat joined >/dev/null
        {ending}; wait
        """,
    )
    assert said == "virtfs: the virtfs shell has ended"
    assert status == str(128 + number)


def test_the_shell_is_not_said_to_have_ended_before_it_does(tmp_path: Path) -> None:
    lines = joining(
        ONE_ID,
        tmp_path,
        """
        start a
        virtfs shell --join sh -c 'kill -HUP $$' 2>&1 || echo "status $?"
        virtfs shell --join sh -c 'kill -INT $$' 2>&1 || echo "status $?"
        virtfs shell --join sh -c 'exit 3' 2>&1 || echo "status $?"
        : >end; wait
        """,
    )
    assert [line for line in lines if line.startswith("status")] == ["status 129", "status 130", "status 3"]
    assert not any("has ended" in line for line in lines)


def test_a_command_ends_with_its_window(tmp_path: Path) -> None:
    """It gets SIGHUP if its parent, the program that the user has started, is killed."""
    (said,) = joining(
        ONE_ID,
        tmp_path,
        """
        start a
        mkfifo joined over
        trap="trap 'echo SIGHUP >$HOME/over; exit' HUP"
        virtfs shell --join sh -c "$trap; echo >$HOME/joined; sleep 1000 & wait" &
        cat joined >/dev/null
        kill -KILL $(ps -o pid= --ppid $!)
        cat over
        : >end; wait
        """,
    )
    assert said == "SIGHUP"


def test_none_or_several(tmp_path: Path) -> None:
    none, nobody, several, one = joining(
        MANY_IDS,
        tmp_path,
        """
        virtfs shell --join true 2>&1 || :
        virtfs ls 2>&1
        start a; start b
        virtfs shell --join true 2>&1 || :
        virtfs shell --join -d "$b" sh -c "echo \\$VIRTFS $b"
        : >end; wait
        """,
    )
    assert none == "virtfs: no virtfs shell of this user runs: start one with virtfs shell"
    assert nobody.endswith("or enter your virtfs shell with virtfs shell --join")
    assert several.startswith("virtfs: several virtfs shells run: choose one by its $VIRTFS with -d: ")
    assert len(set(one.split())) == 1
    assert one.split()[0] in several


def test_the_shell_of_another_user_is_not_seen(tmp_path: Path) -> None:
    (said,) = joining(
        [],
        tmp_path,
        "start a; setpriv --reuid=1 --regid=1 --clear-groups -- "
        f"{' '.join(VIRTFS)} shell --join true 2>&1 || :; : >end; wait",
    )
    assert said == "virtfs: no virtfs shell of this user runs: start one with virtfs shell"


def test_job_control_works(tmp_path: Path) -> None:
    """Ctrl-C ends the command in the joined shell, and neither shell."""
    program = " ".join(VIRTFS)
    with terminal([*ALONE, "env", f"HOME={tmp_path}", "bash", "--norc", "--noediting"]) as outer:
        outer.expect("ready> ")
        outer.type(f"cd; mkfifo begun; {program} shell sh -c 'echo >$HOME/begun; sleep 1000' &\n")
        outer.expect("ready> ")
        outer.type(f"read x <begun; {program} shell --join bash --norc --noediting\n")
        outer.expect("ready> ")
        outer.type("echo create 3 up >ctl; cat virt3/wait/reader\n")
        until(lambda: in_the_foreground(outer, "cat virt3/wait/reader"), "cat")
        outer.type("\x03")
        outer.expect("ready> ")
        outer.type("echo status=$?; exit 5\n")
        outer.expect("status=130")
        outer.expect("ready> ")
        outer.type("echo left=$?\n")
        outer.expect("left=5")
