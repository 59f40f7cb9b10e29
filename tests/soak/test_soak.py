"""A minute of soak."""

import random

import pytest

from .main import soak


@pytest.mark.timeout(240)
def test_a_minute() -> None:
    """The seed differs from run to run. It is in the table, which the report of a failure shows."""
    result = soak(1, random.randrange(1 << 16))
    print(result.table())
    assert result.wrong == []
    assert len(result.last()) > 0
    assert result.done["checkpoint"] > 4
