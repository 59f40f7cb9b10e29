"""The how-to pages: their steps, typed into one shell from the first to the last, print the output that they show."""

import pytest

from .markdown import ROOT, blocks
from .tour import Tour, prints_what_it_says, touring, touring_without_root

_BEGIN = f"ln -s {ROOT} ~/virtfs; exec 2>&1"


def follow(shell: Tour, page: str) -> None:
    for step in blocks((ROOT / f"doc/{page}.md").read_text()):
        if step.language == "sh":
            prints_what_it_says(shell, step)


@pytest.mark.parametrize("page", ["stack-author", "capture"])
def test_a_page_prints_what_it_says(page: str) -> None:
    with touring() as shell:
        shell.run(_BEGIN, 0)
        follow(shell, page)


def test_the_page_for_teachers_without_root() -> None:
    with touring_without_root() as shell:
        follow(shell, "teaching")
