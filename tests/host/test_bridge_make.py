"""A new bridge is told from another program's, even if the kernel's answers are lost."""

import errno
import socket
import subprocess
from collections.abc import Iterator

import pytest
from harness.nets import fresh, need_taps

from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName
from virtfs.host.bridge_make import make
from virtfs.host.bridgeinfo import ask_link, details
from virtfs.host.links import Links
from virtfs.host.rtnl import Message, Rtnl

from .losing import losing

NAME = BridgeName("bridge0")
MARK = "virtfs state 0123456789abcdef"


@pytest.fixture
def links() -> Iterator[Links]:
    need_taps()
    with fresh(), Links() as links:
        yield links


def look() -> Message:
    with Rtnl() as rtnl:
        found = ask_link(rtnl, NAME)
    assert found is not None
    return found


def by_another_program() -> None:
    subprocess.run(["ip", "link", "add", NAME, "type", "bridge"], check=True)


@pytest.mark.parametrize("losses", [(), (1,), (1, 2), (2,), (1, 2, 3), (4,), (5,)])
@pytest.mark.parametrize("mark", ["", MARK])
def test_a_bridge_is_made(links: Links, mark: str, losses: tuple[int, ...]) -> None:
    with losing(*losses, read=True) as rtnl:
        index = make(rtnl, links, NAME, mark)
    made = look()
    assert details(made) is not None
    assert (made["index"], made.get_attr("IFLA_IFALIAS") or "", made.get_attr("IFLA_GROUP")) == (index, mark, 0)


@pytest.mark.parametrize("losses", [(), (1,), (1, 2), (2,)])
@pytest.mark.parametrize("mark", ["", MARK])
def test_the_bridge_of_another_program_is_left_alone(links: Links, mark: str, losses: tuple[int, ...]) -> None:
    """It gets no mark. With our mark, a later server would remove it."""
    by_another_program()
    before = look()
    with losing(*losses, read=True) as rtnl, pytest.raises(VirtError) as caught:
        make(rtnl, links, NAME, mark)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.strerror == '"bridge0": File exists'
    now = look()
    assert (now["index"], now.get_attr("IFLA_IFALIAS")) == (before["index"], None)
    assert now.get_attr("IFLA_GROUP") == 0


def test_a_bridge_that_another_program_replaces_at_once(links: Links) -> None:
    class Replacing(Rtnl):
        def ask_all(self, requests: object) -> list[VirtError | None]:
            failures = super().ask_all(requests)  # type: ignore[arg-type]
            subprocess.run(["ip", "link", "delete", NAME], check=True)
            by_another_program()
            return failures

    with Replacing() as rtnl, pytest.raises(VirtError) as caught:
        make(rtnl, links, NAME, MARK)
    assert caught.value.errno == errno.ENXIO
    assert look().get_attr("IFLA_IFALIAS") is None


def test_a_bridge_that_cannot_be_marked_does_not_stay(links: Links) -> None:
    with Rtnl() as rtnl, pytest.raises(VirtError):
        make(rtnl, links, NAME, "x" * 300)  # an alias has at most 255 bytes
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
