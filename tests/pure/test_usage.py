"""What virtfs answers to command lines that it does not know."""

import pytest

from virtfs.cli.main import main
from virtfs.core.help_text import help_text


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """Run virtfs, and return its exit status and the lines that it prints."""
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, error = capsys.readouterr()
    return status, (out + error).splitlines()


@pytest.mark.parametrize("words", [["ls", "/mnt", "more"], ["umount", "-f", "/mnt"], ["shell", "-c", "id"]])
def test_a_subcommand_shows_its_own_usage(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    status, lines = told(capsys, *words)
    assert status == 2
    assert lines[0].startswith(f"usage: virtfs {words[0]} ")
    assert lines[-1].startswith(f"virtfs {words[0]}: error: unrecognized arguments: ")


@pytest.mark.parametrize("words", [["ls"], ["ls", "-d"]])
def test_ls_takes_the_mount_with_and_without_its_option(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert told(capsys, *words, "/nowhere") == (1, ['virtfs: "/nowhere" is not a virtfs mount'])


@pytest.mark.parametrize("line", ["destroy all", "virt3 up", "bridge0 up", "create 3"])
def test_a_line_of_ctl_gets_the_command_that_writes_it(capsys: pytest.CaptureFixture[str], line: str) -> None:
    status, lines = told(capsys, *line.split())
    assert (status, lines[-1].endswith(f"use `virtfs ctl {line}`")) == (2, True)


def test_an_unknown_command_is_referred_to_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = told(capsys, "topology")
    assert (status, "`virtfs help`" in lines[-1]) == (2, True)


def test_help_lists_the_commands_and_describes_one(capsys: pytest.CaptureFixture[str]) -> None:
    bare, commands = told(capsys)
    assert (bare, any("list mounts and interfaces" in line for line in commands)) == (2, True)
    assert any(line.split()[:1] == ["help"] for line in commands)
    assert told(capsys, "help") == (0, commands)
    assert told(capsys, "help", "ls")[1][0].startswith("usage: virtfs ls ")
    for words in (["help"], ["-h"], ["--help"]):
        assert told(capsys, "help", *words) == (0, commands)
    assert told(capsys, "ctl", "help") == (0, help_text().splitlines())


def test_the_help_about_a_word_of_ctl(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = told(capsys, "ctl", "help", "cable")
    assert (status, lines[0].split()[:3]) == (0, ["cable", "A", "B|SOCKET"])
    assert "SOCKET is unix:PATH" in lines[1], "the words of the usage are explained"
    status, lines = told(capsys, "ctl", "help inet")
    assert [line.split()[:2] for line in lines] == [
        ["virtN", "inet"],
        ["virtN", "-inet"],
        ["bridgeN", "inet"],
        ["bridgeN", "-inet"],
    ]
    status, lines = told(capsys, "ctl", "help", "cables")
    reason = '"cables" is no command or verb of ctl: "virtfs ctl help" lists them'
    assert (status, lines) == (1, [f"virtfs: {reason}"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["mout"], 'unknown command "mout": `virtfs help` lists the commands'),
        (["create"], 'unknown command "create": `virtfs ctl help create` describes this word of ctl'),
        (["mtu"], 'unknown command "mtu": `virtfs ctl help mtu` describes this word of ctl'),
        (["ls", "top"], 'help takes one command, not "ls top"'),
    ],
)
def test_help_for_something_else_is_an_error(capsys: pytest.CaptureFixture[str], words: list[str], reason: str) -> None:
    status, lines = told(capsys, "help", *words)
    assert (status, lines[-1]) == (2, f"virtfs: error: {reason}")
