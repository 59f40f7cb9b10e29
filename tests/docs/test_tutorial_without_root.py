"""The tutorial: its steps run in `virtfs shell` as an ordinary user, from the first line to the last."""

from collections.abc import Iterator

import pytest

from .markdown import Block
from .test_tutorial import STEPS, at
from .tour import Tour, prints_what_it_says, touring_without_root


@pytest.fixture(scope="module")
def tour() -> Iterator[Tour]:
    with touring_without_root() as shell:
        yield shell


@pytest.mark.parametrize("step", STEPS, ids=at)
def test_the_tour_prints_what_it_says(tour: Tour, step: Block) -> None:
    prints_what_it_says(tour, step)
