"""Fixture that runs tests with each loop of the channel."""

import pytest

LOOPS = ["compiled", "python"]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loop of the channels that the test makes: "compiled" or "python"."""
    monkeypatch.setenv("VIRTFS_COMPILED", "no" if request.param == "python" else "yes")
    name: str = request.param
    return name
