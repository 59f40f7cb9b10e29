"""Signals that end virtfs when nohup, a script with `&`, or a caller with unusual dispositions has started it."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from harness import children
from harness.running import ENVIRONMENT, NEW_NETWORK, ROOT, VIRTFS, mounted, run, serving, terminal, until
from harness.waiting import PATIENCE

# Runs a command with some signals ignored (the first argument) and others blocked (the second). The arguments after
# them are the command.
_CALLER = """
import os, signal, sys
for name in filter(None, sys.argv[1].split(",")):
    signal.signal(signal.Signals[name], signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, [signal.Signals[name] for name in filter(None, sys.argv[2].split(","))])
os.execvp(sys.argv[3], sys.argv[3:])
"""


def caller(ignored: str, blocked: str = "") -> list[str]:
    return [sys.executable, "-c", _CALLER, ignored, blocked]


def writer_of(file: Path) -> int:
    """Return the id of the process that has a file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # the process has ended, or has closed the descriptor
            if link.samefile(file):
                return int(link.parts[2])
    raise AssertionError(f"no process has {file} open")


def server_of(directory: Path) -> int:
    """Return the id of the process that serves a directory in the foreground."""
    end = f"mount\0-f\0{directory}\0".encode()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            if file.read_bytes().endswith(end):
                return int(file.parts[2])
    raise AssertionError(f"no process serves {directory}")


NOHUP = ["nohup"]
BACKGROUND = caller("SIGINT,SIGQUIT")
ODD = caller("SIGTERM,SIGCHLD,SIGALRM", "SIGTERM,SIGCHLD,SIGINT,SIGHUP,SIGALRM")


@pytest.mark.parametrize(
    ("by", "ignored"),
    [(NOHUP, signal.SIGHUP), (BACKGROUND, signal.SIGINT), (ODD, None)],
    ids=["nohup", "background", "odd"],
)
def test_a_server_in_the_foreground_ends_with_sigterm(tmp_path: Path, by: list[str], ignored: int | None) -> None:
    with serving(tmp_path, command=[*by, *VIRTFS]) as server:
        if ignored is not None:
            server.process.send_signal(ignored)
            assert (tmp_path / "version").read_text()
        server.process.terminate()
        assert server.process.stderr is not None
        assert "SIGTERM: ending" in server.process.stderr.readline()
        assert server.process.wait(timeout=PATIENCE) == 0
        assert not mounted(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_server_in_the_background_starts_with_default_dispositions(tmp_path: Path, number: int) -> None:
    log, directory = tmp_path / "log", tmp_path / "mount"
    directory.mkdir()
    every = caller("SIGHUP,SIGINT,SIGTERM,SIGCHLD", "SIGHUP,SIGINT,SIGTERM")
    run([*NEW_NETWORK, *every, *VIRTFS, "mount", "-o", f"log={log}", str(directory)]).check_returncode()
    try:
        os.kill(writer_of(log), number)
        until(lambda: not mounted(directory), "the end")
        assert f"{signal.Signals(number).name}: ending" in log.read_text()
    finally:
        if mounted(directory):
            run([*VIRTFS, "umount", str(directory)])


def test_a_shell_under_nohup_lives_through_sighup() -> None:
    with children.start(
        [*NOHUP, *VIRTFS, "shell", "sh", "-c", "echo here; read line; exit 7"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=PATIENCE)
        assert process.returncode == 7


def test_a_shell_passes_the_status_on_whatever_its_caller_ignores() -> None:
    done = run([*ODD, *VIRTFS, "shell", "sh", "-c", "kill -TERM $$"])
    assert done.returncode == 128 + signal.SIGTERM, done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a directory that has tools/run, and a .venv with this virtfs."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/run", tmp_path / "tools")
    program = tmp_path / ".venv/bin/virtfs"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {" ".join(VIRTFS)} "$@"\n')
    program.chmod(0o755)
    return tmp_path


def test_ctrl_c_ends_make_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = checkout / "mount"
    monkeypatch.setitem(ENVIRONMENT, "MOUNT", str(directory))
    with terminal(["sh", "-c", f"trap : INT; unshare --net -- {checkout}/tools/run; echo status=$?"]) as outer:
        outer.expect("Ctrl-C ends it")
        second = run([f"{checkout}/tools/run"])
        assert (second.returncode, second.stdout, "is busy" in second.stderr) == (1, "", True)
        outer.type("\x03")
        outer.expect("SIGINT: ending")
        outer.expect("is unmounted")
        outer.expect("status=0")
    assert not any(directory.iterdir())


def test_the_end_of_make_run_keeps_mounts_of_other_namespaces(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing the directory would detach them, although only this namespace has the mount of `make run`."""
    directory = checkout / "mount"
    monkeypatch.setitem(ENVIRONMENT, "MOUNT", str(directory))
    other = f"read line; mount -t tmpfs other {directory} && echo mounted; read line; findmnt -n -o FSTYPE {directory}"
    namespace = children.start(
        ["unshare", "--mount", "sh", "-c", f"echo entered; {other}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process = children.start(
        [*NEW_NETWORK, "sh", "-c", f"read line; exec {checkout}/tools/run"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with namespace, process:
        assert namespace.stdin is not None
        assert namespace.stdout is not None
        assert process.stdin is not None
        assert process.stdout is not None
        assert namespace.stdout.readline() == "entered\n"
        process.stdin.write("\n")
        process.stdin.flush()
        while "is mounted" not in (line := process.stdout.readline()):
            assert line
        namespace.stdin.write("\n")
        namespace.stdin.flush()
        assert namespace.stdout.readline() == "mounted\n"
        process.terminate()
        assert "is unmounted" in process.communicate(timeout=PATIENCE)[0]
        assert namespace.communicate("\n", timeout=PATIENCE)[0] == "tmpfs\n"


@pytest.mark.parametrize("by", [NOHUP, BACKGROUND, []], ids=["nohup", "background", "plain"])
def test_sigterm_ends_make_run(checkout: Path, monkeypatch: pytest.MonkeyPatch, by: list[str]) -> None:
    """SIGTERM to the script alone suffices; make and service managers send it so."""
    directory = checkout / "mount"
    monkeypatch.setitem(ENVIRONMENT, "MOUNT", str(directory))
    process = children.start(
        [*by, *NEW_NETWORK, str(checkout / "tools/run")],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdout is not None
        while "is mounted" not in (line := process.stdout.readline()):
            assert line
        process.terminate()
        assert "is unmounted" in process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0
    assert not any(directory.iterdir())


def test_make_run_mounts_again_after_its_server_was_killed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = checkout / "mount"
    monkeypatch.setitem(ENVIRONMENT, "MOUNT", str(directory))
    make_run = f"{checkout}/tools/run"
    with terminal(["unshare", "--net", "sh", "-c", f"{make_run}; echo status=$?; exec {make_run}"]) as outer:
        outer.expect("Ctrl-C ends it")
        os.kill(server_of(directory), signal.SIGKILL)
        outer.expect("status=137")
        outer.expect("Ctrl-C ends it")
        outer.type("\x03")
        outer.expect("is unmounted")
    assert not any(directory.iterdir())
