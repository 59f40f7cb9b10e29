"""The tutorial: its steps run in `virtfs shell` as an ordinary user, from the first line to the last.

Those of README do too, with `$VIRTFS` for `/mnt/virt`.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from .markdown import Block
from .test_tutorial import FIRST_MINUTE, STEPS, at
from .tour import Tour, prints_what_it_says, touring_without_root


@pytest.fixture(scope="module")
def tour() -> Iterator[Tour]:
    with touring_without_root() as shell:
        yield shell


@pytest.mark.parametrize("step", STEPS, ids=at)
def test_the_tour_prints_what_it_says(tour: Tour, step: Block) -> None:
    prints_what_it_says(tour, step)


def test_the_tour_without_a_range_in_subuid() -> None:
    """The page says what to type instead of the part about another user. Later parts use its interface."""
    with touring_without_root(ids="") as shell:
        shell.run("exec 2>&1", 0)
        for step in STEPS:
            if "owner nobody" in step.text:
                first, *_ = step.text.replace(" owner nobody", "").splitlines()
                assert shell.run(first, 0) == ""
            elif "tcpdump" in step.text:
                shell.run(step.text.replace("tcpdump -nt", "tshark"), 0)
            elif "virtfs ls" in step.text:
                assert "virt5 - virt6 up" in shell.run(step.text, 0)
            else:
                prints_what_it_says(shell, step)


def test_the_readme_prints_what_it_says() -> None:
    with touring_without_root() as shell:
        for step in FIRST_MINUTE:
            prints_what_it_says(shell, replace(step, text=step.text.replace("/mnt/virt", "$VIRTFS")))
