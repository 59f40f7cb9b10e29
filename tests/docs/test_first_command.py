"""The first command that a newcomer types prints a frame at once, also on a busy machine.

This holds for each text that has the command.
"""

import os
import re
from collections.abc import Iterator

import pytest
from harness.serving import Mount

from virtfs.cli.main import _parser

from .markdown import ROOT, blocks, section

_RUNS = 15
_FIRST = r"^ *(?:# )?(echo create 3 .*)\n *(?:# )?(ping .*)\n *(?:# )?(dd .*)$"


def commands(text: str) -> str:
    """Return the three lines of the first command, without the prompt or indentation before them."""
    found = re.search(_FIRST, text, re.MULTILINE)
    assert found, "the first command is not there"
    return "\n".join(found.groups())


README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "doc/tutorial.md").read_text()
FIRST = commands(README)


@pytest.fixture
def busy(mount: Mount) -> Iterator[None]:
    """Run one busy loop per processor."""
    for _ in range(os.cpu_count() or 1):
        mount.start("sh", "-c", "while :; do :; done")
    yield
    mount.end_programs()


def test_it_is_the_same_wherever_it_stands() -> None:
    printed = (ROOT / "tools/run").read_text().split("exec .venv")
    assert [commands(part) for part in printed[:2]] == [FIRST, FIRST]
    assert commands((ROOT / "man/virtfs.1").read_text()) == FIRST
    assert commands(_parser().format_help()) == FIRST
    assert commands(TUTORIAL) == FIRST


@pytest.mark.usefixtures("busy")
def test_it_shows_the_first_request(mount: Mount) -> None:
    """The frame is the host's first ARP request: the host repeats it after a second, but the tap has sent only one."""
    again = f"{FIRST}\nip -s -o link show dev tap3\nkill $!; wait; echo destroy 3 >ctl"
    lines = mount.sh(f"for n in {{1..{_RUNS}}}; do\n{again}\ndone", seconds=50).splitlines()
    assert len(lines) == 4 * _RUNS
    for at in range(0, len(lines), 4):
        first, _, third, counters = lines[at : at + 4]
        assert re.match(r"00000000: ffff ffff ffff .* 0806 0001 ", first)
        assert re.match(r"00000020: 0000 0000 0000 0a00 0302 ", third)
        sent = re.search(r"TX: .*?\\ *\d+ +(\d+) ", counters)
        assert sent
        assert sent[1] == "1", f"run {at // 4}: the reader missed the first request"


@pytest.mark.parametrize("tour", ["A tour of two minutes", "A second tour: streams"])
def test_no_reader_of_a_tour_can_be_too_late(tour: str) -> None:
    """Each block of a tour waits for its reader, or has a backlog that keeps frames for it."""
    created: dict[str, str] = {}
    read = 0
    for block in blocks(section(TUTORIAL, "A tour of two minutes") + section(TUTORIAL, tour)):
        created |= dict(re.findall(r"^echo create (\d+) (.*)$", block.text, re.MULTILINE))
        for unit in re.findall(r"(?:dd if=|cat |grep .*)virt(\d+)/(?:frame|hex)", block.text):
            assert f"virt{unit}/wait/reader" in block.text or "backlog" in created[unit], block
            read += 1
    assert read


def test_a_command_is_on_the_path_before_it_is_used() -> None:
    """README installs virtfs in a line of its own, and uses it only after that. tests/dist runs what the line does."""
    steps = [block.text for block in blocks(README) if block.language == "sh"]
    lines = [line for step in steps for line in step.splitlines()]
    (install,) = [at for at, line in enumerate(lines) if line == "sudo make install"]
    assert all(at > install for at, line in enumerate(lines) if re.match(r"virtfs ", line))
    assert re.search(r"^install:", (ROOT / "Makefile").read_text(), re.MULTILINE)
