"""README and the tutorial: their shell and Python code is valid, and their steps print the output that they show."""

import ast
import subprocess
from collections.abc import Iterator

import pytest

from .markdown import ROOT, Block, blocks, section
from .tour import Tour, masked, prints_what_it_says, touring, undelayed

README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "doc/tutorial.md").read_text()
ALL = blocks(README) + blocks(TUTORIAL)
STEPS = [block for block in blocks(TUTORIAL) if block.language == "sh"]
_LONG_LINE = "cable 1 2 delay 20ms"
FIRST_MINUTE = [block for block in blocks(section(README, "The first minute")) if block.language == "sh"] + [
    block for block in blocks(section(README, "Recipes")) if _LONG_LINE in block.text
]


def at(block: Block) -> str:
    return f"{block.language}-{block.text.split(maxsplit=1)[0]}-{block.line}"


def test_the_first_page_is_short() -> None:
    assert len(README.encode()) <= 8192, "a newcomer reads it in one go"


@pytest.fixture(scope="module")
def tour() -> Iterator[Tour]:
    with touring() as shell:
        yield shell


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "sh"], ids=at)
def test_bash_reads_each_shell_block(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=at)
def test_python_reads_each_python_block(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("step", STEPS, ids=at)
def test_the_tour_prints_what_it_says(tour: Tour, step: Block) -> None:
    prints_what_it_says(tour, step)


def test_the_readme_prints_what_it_says() -> None:
    """The long line removes itself, so it can be typed again and loses the same frame."""
    with touring() as shell:
        for step in (*FIRST_MINUTE, FIRST_MINUTE[-1]):
            prints_what_it_says(shell, step)
        shell.run("echo destroy 3 >ctl", 0)


def test_a_mask_hides_only_what_differs_from_run_to_run() -> None:
    assert masked("00000000: ffff ffff ffff f65c 3e12 6bed 0806 0001  .......\\>.k.....\n") == masked(
        "00000000: ffff ffff ffff 0255 3e12 6b01 0806 0001  .......U>.k.....\n"
    )
    assert masked("00000000: ffff ffff ffff f65c 3e12 6bed 0806 0001  x\n") != masked(
        "00000000: ffff ffff ffff f65c 3e12 6bed 0800 0001  x\n"
    )
    assert masked("create 3 link b2:0a:9b:0b:0e:03 up\n") != masked("create 4 link b2:0a:9b:0b:0e:03 up\n")
    assert masked("time=0.716 ms\n") == masked("time=9.32 ms\n") != masked("0.716 ms\n")
    assert masked("time=40.5 ms\n") == masked("time=141 ms\n") != masked("time=20.5 ms\n")
    assert undelayed(masked("time=40.5 ms\n"), masked("time=20.5 ms\n")) == masked("time=20.5 ms\n")
    assert undelayed(masked("time=20.5 ms\n"), masked("time=40.5 ms\n")) != masked("time=40.5 ms\n")
    assert undelayed(masked("time=40.5 ms\n"), masked("time=0.716 ms\n")) == masked("time=0.716 ms\n")
    assert undelayed(masked("time=0.5 ms\n"), masked("time=40.5 ms\n")) != masked("time=40.5 ms\n")
