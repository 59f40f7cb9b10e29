"""`make dist` checks what it has built: each distribution in dist/, installed by pip into a clean environment."""

from pathlib import Path

import pytest
from harness.serving import PROJECT

from . import building, installed


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_pip_installs_it(kind: str, tmp_path: Path) -> None:
    (file,) = (PROJECT / "dist").glob(kind)
    environment = building.environment(tmp_path / "environment")
    building.install(file, environment)
    installed.check(environment, environment)
