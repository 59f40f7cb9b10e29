"""The ways of pxe.sh that test_pxe.py does not try. `make boot` tries all."""

import pytest
from harness.serving import Mount

from .booting import boots


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["vnet", "tun", "frame"])
def test_it_boots(mount: Mount, way: str) -> None:
    boots(mount, way)
