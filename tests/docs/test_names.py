"""The documents name only files, modules, classes, functions, folders and documents that exist in the tree.

Names are checked in backticks outside of fenced blocks. A path or a name with a dot must resolve. A single word is
checked if it can only be a name in the code: with a capital inside, or with an underscore.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import test_layers

from .markdown import ROOT, section

DOCUMENTS = sorted(
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(f"doc/{path.name}" for path in (ROOT / "doc").glob("*.md"))]
)
# These documents also have names of the kernel in backticks, so only paths can be checked in them.
KERNELS = {
    f"doc/{page}.md"
    for page in ("kernel", "works-with", "files", "tutorial", "troubleshooting", "comparison", "install")
} | {"README.md"}
AT_THE_ROOT = {"status.json"}  # looks like a module and a name
BELOW_AN_INTERFACE = {"stats/", "wait/", "tap/"}
FOREIGN = {"trio", "pyfuse3", "pyroute2", "anyio", "subprocess", "select"}
# Variables of the examples in doc/python.md and doc/testing.md, and their classes.
VARIABLES = {"net": "Mount", "v": "Virt", "virt": "Virt", "a": "Host", "wire": "VirtSocket"}

_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"\.?[a-z_][\w.]*(?:/\w[\w.-]*)*/?")
_DOTTED = re.compile(r"_?[A-Za-z]\w*(?:\.\w+)+")
_CODE_ONLY = re.compile(r"_?[A-Z][a-z]+\w*|_?[a-z]+\w*_\w+|[A-Z]+_[A-Z_]+")
_FOLDERS = {"virtfs", "tests", "doc", "man", "tools", "bench", "examples", ".ci"}


def layers() -> set[str]:
    """Return the folders of the package."""
    return {path.parent.name for path in (ROOT / "virtfs").glob("*/__init__.py")}


def spans(document: str) -> list[str]:
    """Return the texts in backticks, without the parentheses of calls."""
    text = _FENCED.sub("", (ROOT / document).read_text())
    return [span.removesuffix("()") for span in re.findall(r"`([^`\n]+)`", text)]


def members(tree: ast.AST) -> Iterator[str]:
    """Yield every name that a piece of code defines or assigns, and every word of its short strings."""
    docstrings = set()
    for node in ast.walk(tree):  # breadth first, so a statement comes before its value
        match node:
            case ast.Expr(value=value):
                docstrings.add(id(value))
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.Constant(value=str(text)) if len(text) < 300 and id(node) not in docstrings:
                yield from re.findall(r"\w+", text)


@cache
def modules() -> dict[str, ast.Module]:
    """Return the modules of the package, the tests (except tests/docs) and the benchmark, by dotted name."""
    paths = [path for folder in ("virtfs", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in paths
        if path.parent != Path(__file__).parent
    }


@cache
def names_of(module: str) -> frozenset[str]:
    """Return every name in one module."""
    return frozenset(members(modules()[module]))


@cache
def names() -> frozenset[str]:
    """Return every name in the code."""
    return frozenset().union(*map(names_of, modules()))


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """Return the classes, by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for module in modules().values():
        within: list[ast.AST] = [module]
        for tree in within:  # no class here is inside an expression
            statements = [node for node in ast.iter_child_nodes(tree) if isinstance(node, ast.stmt)]
            within += statements
            for node in statements:
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append(node)
    return found


@cache
def members_of(name: str) -> frozenset[str]:
    """Return every name in the classes of that name."""
    return frozenset().union(*map(members, classes().get(name, [])))


def has(name: str, member: str) -> bool:
    """Return whether a class or one of its bases has this member."""
    return member in members_of(name) or any(
        any(has(base.id, member) for base in node.bases if isinstance(base, ast.Name))
        for node in classes().get(name, [])
    )


def is_there(path: str) -> bool:
    return any((place / path).exists() for place in (ROOT, ROOT / "virtfs"))


def resolves(dotted: str) -> bool:
    """Return whether `Class.member`, `folder.module`, `module.name` or a longer chain of these exists."""
    first, *rest = dotted.split(".")
    if first in classes():
        return has(first, rest[0])
    for length in range(len(rest), -1, -1):
        ending = "." + ".".join((first, *rest[:length]))
        if found := [module for module in modules() if f".{module}".endswith(ending)]:
            return length == len(rest) or any(rest[length] in names_of(module) for module in found)
    return False


def objection(span: str, document: str) -> str | None:
    """Return why a text in backticks is wrong, or None if it is right."""
    if _PATH.fullmatch(span) and ("/" in span or span.endswith(".py")):
        ours = span.endswith((".py", ".md", ".sh", "/")) or span.partition("/")[0] in _FOLDERS | layers()
        if span in BELOW_AN_INTERFACE or not ours:
            return None
        named = span if "/" in span else next((m for m in modules() if m.endswith(f".{span[:-3]}")), "")
        return None if is_there(span) or (named and "/" not in span) else "no such file"
    if document in KERNELS or span in AT_THE_ROOT:
        return None
    if _DOTTED.fullmatch(span):
        first, _, rest = span.partition(".")
        span = f"{VARIABLES.get(first, first)}.{rest}"
        ours = span.partition(".")[0] in classes() or not span.endswith((".5", ".1", ".8", ".md", ".json"))
        return "no such name" if ours and span.partition(".")[0] not in FOREIGN and not resolves(span) else None
    if _CODE_ONLY.fullmatch(span) and span not in names():
        return "no such name"
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_in_backticks_are_in_the_tree(document: str) -> None:
    wrong = {span: why for span in spans(document) if (why := objection(span, document))}
    assert wrong == {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", (ROOT / document).read_text())):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "examples/README.md"])
def test_a_shell_of_virtfs_finds_the_paths_of_its_command(document: str) -> None:
    """The command is found from the caller's directory. Its arguments are not, unless `--` keeps that directory."""
    commands = re.findall(r"virtfs shell ([^`\n]+)", (ROOT / document).read_text())
    lost = [line for line in commands for word in line.split()[1:] if re.match(r"[\w.-]+/", word)]
    assert [line for line in lost if not line.startswith(("-", "sh -c"))] == []


def anchors(path: Path) -> set[str]:
    """Return the anchors that a forge generates from the headings, and those that the document sets itself."""
    text = _FENCED.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def test_the_layers_are_the_folders() -> None:
    order = re.search(r"^    (\w+(?: < \w+)+)$", (ROOT / "doc/design.md").read_text(), re.MULTILINE)
    assert order
    assert tuple(order[1].split(" < ")) == test_layers.LAYERS
    assert set(test_layers.LAYERS) == layers()


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (section((ROOT / "doc/design.md").read_text(), "2. Layers"), r"^- `(\w+)` "),
        ((ROOT / "CONTRIBUTING.md").read_text(), r"^\| `virtfs/(\w+)/` \|"),
    ],
    ids=["design", "CONTRIBUTING"],
)
def test_each_folder_is_listed_and_no_other(text: str, entry: str) -> None:
    listed = re.findall(entry, text, re.MULTILINE)
    assert sorted(listed) == sorted(layers())


@pytest.mark.parametrize(
    "span",
    ["core/nothing.py", "virtfs/nothing/", "nothing.py", "DeviceHandle.nothing", "core.nothing", "OneWey", "no_such_x"],
)
def test_a_wrong_name_would_be_seen(span: str) -> None:
    assert objection(span, "doc/design.md")


@pytest.mark.parametrize(
    "span",
    ["core/virt.py", "virt.py", "tests/docs/", "DeviceHandle.read", "core.virt", "fuse.names.Keeper", "Waiters", "ctl"],
)
def test_a_right_name_is_let_pass(span: str) -> None:
    assert objection(span, "doc/design.md") is None
