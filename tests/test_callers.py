"""Tests that depend on signals and process groups pass however pytest was started.

Each case runs a few of those tests in a separate pytest process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_SENSITIVE = [
    "mounted/test_frame_waiting.py::test_a_cable_of_cats_is_suspended_and_resumed",
    "mounted/test_frame_waiting.py::test_a_signal_ends_a_waiting_reader[cat virt{n}/frame-2]",
    "examples/test_examples.py::test_cable_ends_with_ctrl_c",
    "cli/test_shell.py::test_all_of_it_ends_with_the_shell_command[1-root]",
    "cli/test_shell.py::test_ctrl_c_and_ctrl_z_are_the_commands[root]",
    "cli/test_mount.py::test_each_way_to_end_answers_readers_and_removes_taps[SIGHUP]",
]
# Shell code that runs "$@".
_CALLERS = {
    "nohup in a script": 'nohup "$@" <&- & wait $!',  # SIGHUP, SIGINT and SIGQUIT are ignored, stdin is closed
    "cron": 'setsid --fork --wait "$@"',  # an orphaned process group, no terminal
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", _CALLERS)
def test_any_caller(how: str) -> None:
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        ["sh", "-c", _CALLERS[how], "sh", *pytest_, *(str(_TESTS / test) for test in _SENSITIVE)],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        cwd=_TESTS.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout


def test_a_script_ends_with_pytest(tmp_path: Path) -> None:
    """Even if pytest is killed. What the script has started, also in sessions of its own, keeps the pipe open."""
    pipe, text = tmp_path / "pipe", 'exec 3>"$1"; setsid sleep 1000 & echo ready >&3; sleep 1000'
    os.mkfifo(pipe)
    program = f"from harness.running import script; script({text!r}, {str(pipe)!r})"
    path = {**os.environ, "PYTHONPATH": f"{_TESTS}:{_TESTS.parent}"}
    pytest_ = subprocess.Popen([sys.executable, "-c", program], env=path, stdin=subprocess.DEVNULL)
    try:
        with pipe.open() as told:
            assert told.readline() == "ready\n"
            pytest_.kill()
            assert told.read() == ""
    finally:
        pytest_.kill()
        pytest_.wait()
