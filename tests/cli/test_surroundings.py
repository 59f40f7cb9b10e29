"""The programs work whatever streams, locale, directory, limits and descriptors their caller leaves to them."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import children
from harness.running import ENVIRONMENT, HELPER, NEW_NETWORK, ROOT, VIRTFS, run


@dataclass(frozen=True)
class Caller:
    """What a caller leaves to a program. closed: standard streams. before: commands of the shell that starts it.

    bare: whether the environment contains nothing else.
    """

    closed: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""
    bare: bool = False

    def command(self, *words: str) -> str:
        """Return the shell command that starts a program."""
        environment = [f"{key}={value}" for key, value in (self.environment | {"PYTHONPATH": str(ROOT)}).items()]
        start = shlex.join(["env", *(["-i"] if self.bare else []), *environment, *words])
        return f"{self.before}{start} {' '.join(f'{number}>&-' for number in self.closed)}"


DELETED = 'cd "$(mktemp -d)"; rmdir "$PWD"; '
MANY = 'for n in {10..300}; do eval "exec $n</dev/null"; done; '
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}  # in this locale Python decodes with ASCII
CALLERS = {
    "no standard output, optimized, in a deleted directory": Caller(
        "1", {"PYTHONOPTIMIZE": "2", "PYTHONIOENCODING": "ascii", "TZ": ":///x"}, f"umask 0; {DELETED}"
    ),
    "no standard error, many descriptors, umask 0777": Caller("2", {**ASCII, "HOME": "/x"}, f"umask 0777; {MANY}"),
    "no streams, no environment, small files only": Caller("012", ASCII, "ulimit -f 0; ", bare=True),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an empty directory for a mount."""
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_mount_and_umount(directory: Path, tmp_path: Path, caller: Caller) -> None:
    state = tmp_path / "state→ü"
    limited = "ulimit" in caller.before
    mount = [*VIRTFS, "mount", *([] if limited else ["-o", f"state={state}"]), str(directory)]
    done = run([*NEW_NETWORK, "bash", "-euc", f"""
        trap 'umount -l {directory} 2>/dev/null || true' EXIT
        ( {caller.command(*mount)} )
        [ "$(stat -c %a {directory}/ctl)" = 644 ]
        echo 'create 3 up description → é' >{directory}/ctl
        cat {directory}/virt3/description
        ( {caller.command(*VIRTFS, "umount", str(directory))} )
        ls -A {directory}
        """], seconds=60)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "→ é\n"), done.stderr
    assert limited or "description → é\n" in state.read_text(encoding="utf-8")


def test_shell_without_streams() -> None:
    done = run(
        ["bash", "-c", Caller("012", ASCII).command(*VIRTFS, "shell", "sh", "-c", "echo create 3 up >ctl && exit 7")]
    )
    assert done.returncode == 7


def test_the_other_commands_without_streams() -> None:
    for words, status in (
        ([*VIRTFS, "--version"], 0),
        ([*HELPER, "virtfs", "/→", "-f", "-v", "-o", "x-é"], 0),
        ([*HELPER, "virtfs", "/→", "-o", "é"], 1),
    ):
        done = run(["bash", "-c", Caller("012", ASCII).command(*words)])
        assert done.returncode == status, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_sentence_quotes_the_argument_in_every_locale() -> None:
    done = run(["bash", "-c", Caller(environment=ASCII).command(*VIRTFS, "mount", "/→\udcff\x1b")])
    assert (done.returncode, done.stderr) == (1, 'virtfs: "/→\\xff\\x1b": No such file or directory\n')


def test_ctrl_c_while_it_imports(tmp_path: Path) -> None:
    """A module that waits stands for a slow import."""
    os.mkfifo(tmp_path / "begun")
    (tmp_path / "argparse.py").write_text(
        f"import time\nwith open('{tmp_path}/begun', 'w') as file:\n    file.write('here')\ntime.sleep(1000)\n"
    )
    with children.start(
        [sys.executable, "-m", "virtfs", "ls"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"},
        stderr=subprocess.PIPE,
    ) as program:
        assert (tmp_path / "begun").read_text() == "here"
        program.send_signal(signal.SIGINT)
        assert program.communicate()[1] == ""
    assert program.returncode == -signal.SIGINT


def test_a_relative_path_in_a_deleted_directory() -> None:
    done = run(["bash", "-c", Caller(before=DELETED).command(*VIRTFS, "mount", "here")])
    assert (done.returncode, done.stderr) == (
        1,
        "virtfs: the working directory has been deleted: change to another directory, and repeat the command\n",
    )


def test_a_full_standard_error() -> None:
    done = run(["bash", "-c", Caller().command(*VIRTFS, "mount", "/nonexistent") + " 2>/dev/full"])
    assert (done.returncode, done.stdout) == (1, "")
