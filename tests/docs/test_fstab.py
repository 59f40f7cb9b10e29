"""The lines of fstab in the pages do not stop a boot, and wait for the file system of their state file."""

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


@pytest.mark.parametrize(("page", "options"), LINES)
def test_a_line_of_fstab(page: str, options: str) -> None:
    state = parse(options).state
    words = options.split(",")
    assert "noauto" in words or "nofail" in words
    assert not state or f"x-systemd.requires-mounts-for={Path(state).parent}" in words
