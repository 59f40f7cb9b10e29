"""The lines of fstab in the pages do not stop a boot, and wait for the file system of their state file.

The steps from such a line to the service fit the unit.
"""

import re
from pathlib import Path

import pytest

from virtfs.cli.options import parse

from .markdown import ROOT

PAGES = [*sorted(ROOT.glob("man/*.?")), *sorted(ROOT.glob("doc/*.md")), ROOT / "README.md"]
LINES = [
    (page.name, options)
    for page in PAGES
    for options in re.findall(r"none /\S+ (?:fuse\.)?virtfs (\S+) 0 0", page.read_text())
]


def test_the_pages_that_have_a_line() -> None:
    assert {page for page, _ in LINES} >= {"install.md", "mount.virtfs.8", "virtfs.1", "virtfs-recipes.7"}


def test_the_change_to_the_service_moves_the_state_file_to_where_the_unit_looks() -> None:
    page = (ROOT / "doc/install.md").read_text()
    ((before, after),) = re.findall(r"^sudo mv (\S+) (\S+)$", page, re.MULTILINE)
    assert before in {parse(options).state for name, options in LINES if name == "install.md"}
    (kept,) = re.findall(r"-o state=(\S+)", (ROOT / "systemd/virtfs@.service").read_text())
    assert after == kept.replace("%S", "/var/lib").replace("%i", "mnt-virt")
    assert f"The state of this service is in {after}." in page


def test_the_command_that_removes_links_to_units_names_all_units() -> None:
    (units,) = re.findall(r"`systemctl disable ((?:virtfs\S*@\.\S+ ?)+)`", (ROOT / "doc/install.md").read_text())
    assert sorted(units.split()) == sorted(path.name for path in (ROOT / "systemd").glob("*@.*"))


@pytest.mark.parametrize(("page", "options"), LINES)
def test_a_line_of_fstab(page: str, options: str) -> None:
    state = parse(options).state
    words = options.split(",")
    assert "noauto" in words or "nofail" in words
    assert not state or f"x-systemd.requires-mounts-for={Path(state).parent}" in words
