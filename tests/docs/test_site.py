"""The site of the documents builds without a warning, and has the man pages, the pictures, and no broken link."""

import html
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from .markdown import ROOT, blocks, section

PICTURES = sorted((ROOT / "doc/pictures").glob("*.svg"))
LARGEST = 60_000  # bytes of a picture


class Page(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "tools/pages.py"), str(site)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    return site


def test_every_document_and_man_page_is_in_it(site: Path) -> None:
    documents = [path for path in ROOT.glob("doc/*.md") if path.stem != "index"]
    pages = {f"doc/{path.stem}.html" for path in documents} | {f"man/{path.name}.html" for path in ROOT.glob("man/*")}
    assert pages <= {str(path.relative_to(site)) for path in site.rglob("*.html")}


def test_a_man_page_has_its_sections_and_links_to_others(site: Path) -> None:
    page = Page((site / "man/virtfs.5.html").read_text())
    assert {"NAME", "SYNOPSIS", "FRAME", "CABLES", "DIAGNOSTICS", "The_host's_end"} <= page.anchors
    assert {"virtfs.1.html", "mount.virtfs.8.html"} <= page.links


def test_the_pictures_are_in_it_and_each_is_used(site: Path) -> None:
    assert [path.name for path in sorted((site / "doc/pictures").iterdir())] == [path.name for path in PICTURES]
    used = {unquote(link).rpartition("/")[2] for path in site.rglob("*.html") for link in Page(path.read_text()).links}
    assert {path.name for path in PICTURES} <= used


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_needs_nothing_from_elsewhere(picture: Path) -> None:
    text = picture.read_text()
    assert len(text.encode()) <= LARGEST
    for word in ("url(http", "@import", "@font-face", "<script", "<image"):
        assert word not in text


def test_the_picture_of_the_tour_shows_the_commands_of_the_readme() -> None:
    """Otherwise `make pictures` must make it again."""
    shown = html.unescape((ROOT / "doc/pictures/tour.svg").read_text()).replace("\N{NO-BREAK SPACE}", " ")
    steps = blocks(section((ROOT / "README.md").read_text(), "The first minute"))
    for step in steps:
        if step.language == "sh":
            assert [line for line in step.text.splitlines() if line not in shown] == []


def test_each_link_leads_somewhere(site: Path) -> None:
    """mkdocs checks the links of Markdown, but not those of the man pages."""

    @cache
    def anchors(path: Path) -> set[str]:
        return Page(path.read_text()).anchors

    wrong = []
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # its links are those of a server
            continue
        for link in Page(path.read_text()).links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if parts.scheme or parts.netloc:
                continue
            if not target.exists() or (anchor and target.suffix == ".html" and anchor not in anchors(target)):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == []
