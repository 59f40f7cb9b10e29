"""Build the site of the documents with mkdocs: tools/pages.py [DIR], build/site without DIR.

The pages have the same places as in the checkout: README.md, doc, man, examples. Links that a forge can follow but a
site cannot are turned into pages: man pages become HTML, and a file or a folder that a page links to becomes a page
with its text. A link that leads nowhere, or a page that is missing in the list of mkdocs.yml, is an error.
"""

import html
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[1]
_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)")
_HEADING = re.compile(r'<h\d class="(S[hs])" id="([^"]+)"><a [^>]*>(.*?)</a></h\d>', re.DOTALL)
_REFERENCE = re.compile(r'<a class="Xr">([\w.-]+)\((\d)\)</a>')
# A forge begins a list after any line, Python-Markdown only after a blank line.
_LIST = re.compile(r"^((?![-*#|> ]|\d+\. ).+)\n(?=(?:[-*]|\d+\.) )", re.MULTILINE)
_LANGUAGES = {".py": "python", ".sh": "bash", ".c": "c", ".h": "c", ".go": "go", ".rs": "rust", ".json": "json"}


class Pages:
    """The Markdown files of the site, made from the documents of the checkout."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: set[str] = set()

    def make(self) -> None:
        """Make the pages, and copy the pictures."""
        for document in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "doc/*.md"):
            for path in sorted(ROOT.glob(document)):
                self._document(path)
        for page in sorted((ROOT / "man").iterdir()):
            self._linkable(page)
        shutil.copyfile(ROOT / "tools/pages.css", self._directory / "pages.css")
        for picture in sorted((ROOT / "doc/pictures").glob("*.svg")):
            target = self._directory / picture.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, target)

    def _document(self, path: Path) -> None:
        """Make the page of a Markdown file, unless it exists."""
        name = str(path.relative_to(ROOT))
        if name not in self._made:
            self._made.add(name)
            self._write(Path(name), self._linked(path))

    def _write(self, path: Path, text: str) -> None:
        target = self._directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _linked(self, document: Path) -> str:
        """Return the text of a document, with links to pages."""

        def link(match: re.Match[str]) -> str:
            path = (document.parent / match[1]).resolve()
            if "://" in match[1] or not path.exists() or path.suffix == ".svg":
                return match[0]
            if path.suffix == ".md":
                self._document(path)
                return match[0]
            return f"{match[0].rstrip('/')}{self._linkable(path)}"

        parts = _FENCED.split(document.read_text())
        parts[::2] = [_LIST.sub(r"\1\n\n", _LINK.sub(link, part)) for part in parts[::2]]
        return "".join(parts)

    def _linkable(self, path: Path) -> str:
        """Make the page of a file or of a folder, unless it exists. Returns the end of the page's name."""
        if (path / "README.md").exists():  # the page of this folder
            self._document(path / "README.md")
            return "/README.md"
        name = path.relative_to(ROOT)
        end = "/index.md" if path.is_dir() else ".md"
        if f"{name}{end}" not in self._made:
            self._made.add(f"{name}{end}")
            manual = name.parent == Path("man")
            lines = _manual(path) if manual else self._folder(path) if path.is_dir() else _file(path)
            self._write(Path(f"{name}{end}"), f"# {_manual_name(path) if manual else name}\n\n" + "\n".join(lines))
        return end

    def _folder(self, folder: Path) -> Iterator[str]:
        """Yield the lines of the list of a folder."""
        for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
            if path.name != "__pycache__" and (path.is_dir() or path.suffix != ".pyc"):
                yield f"- [{path.name}]({path.name}{self._linkable(path)})"


def _file(path: Path) -> Iterator[str]:
    yield f"~~~~{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}~~~~"


def _manual_name(path: Path) -> str:
    return f"{path.stem}({path.suffix[1:]})"


def _manual(path: Path) -> Iterator[str]:
    """Yield the pieces of a man page: headings in Markdown, for the table of contents, and HTML between them."""
    command = ["mandoc", "-T", "html", "-O", "fragment", str(path)]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    text = re.sub(
        r'</?section.*?>|<table class="(?:head|foot)">.*?</table>|^<div class="manual-text">',
        "",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = _REFERENCE.sub(_refer, text.rstrip().removesuffix("</div>"))
    _, *pieces = _HEADING.split(text)
    for kind, anchor, title, body in zip(*(pieces[at::4] for at in range(4)), strict=True):
        yield f"{'##' if kind == 'Sh' else '###'} {' '.join(html.unescape(title).split())} {{: #{anchor} }}\n"
        yield f'<div class="manual">{body.strip()}</div>\n'


def _refer(match: re.Match[str]) -> str:
    """Return a reference to a man page: a link if the page is one of virtfs."""
    page = f"{match[1]}.{match[2]}"
    return f'<a href="{page}.html">{match[1]}({match[2]})</a>' if (ROOT / "man" / page).exists() else match[0]


def main(site: Path) -> None:
    """Build the site in the directory `site`. SystemExit: mkdocs has warned of something."""
    logging.basicConfig(format="pages: %(message)s", level=logging.WARNING)
    with TemporaryDirectory() as directory:
        Pages(Path(directory)).make()
        try:
            build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=directory, site_dir=str(site), strict=True))
        except Abort as abort:
            raise SystemExit(f"pages: {abort}") from None


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build/site")
