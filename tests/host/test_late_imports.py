"""Modules that are imported when they are first needed, while no descriptor is free for that."""

import errno
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder

import pytest
from harness.process import fails

from virtfs import host
from virtfs.core.ids import Unit
from virtfs.host.bpf import compile_filter
from virtfs.host.links import Links
from virtfs.host.tap import Tap
from virtfs.host.tap_loan import before
from virtfs.host.tap_protocol import OFFLOAD_ALL


class NoDescriptor(MetaPathFinder):
    """Finds no module of virtfs.host, as when no descriptor is left for the file."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        if name.startswith("virtfs.host."):
            raise OSError(errno.EMFILE, "Too many open files", name)


@pytest.fixture
def tap(network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    for name in ("features", "vlantags"):
        monkeypatch.delitem(sys.modules, f"virtfs.host.{name}", raising=False)
        monkeypatch.delattr(host, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoDescriptor(), *sys.meta_path])
    with Tap.open(Unit(3)) as tap:
        yield tap


def test_a_cable_has_its_offload_all_the_same(tap: Tap) -> None:
    tap.set_offload(OFFLOAD_ALL)


def test_a_filter_and_a_loan_are_refused_and_succeed_later(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile_filter("arp")
    with Links() as links:
        with fails(errno.EMFILE):
            tap.set_filter(program)
        tap.set_filter(None)
        with fails(errno.EMFILE):
            before(tap, links)
        monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
        tap.set_filter(program)
        before(tap, links)
