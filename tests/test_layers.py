"""Imports go down the layers only, and few modules may import a foreign library (doc/design.md, "Layers")."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "virtfs"
LAYERS = ("core", "host", "forward", "files", "fuse", "daemon", "client", "testing", "cli")
# Modules of the package that belong to a layer although they are not in its folder, so that users can name them.
BESIDE = {"aio": "client", "scapy": "client"}
OF_USERS = ("core", "client", "testing")  # layers for programs that use a mount

_PATHS = ("virtfs.fuse", "virtfs.files.node", "virtfs.host.mount_call", "virtfs.cli")

# The modules or packages that may import each foreign library, and those that may call ioctl(2) or C functions.
DOORS = {
    "pyfuse3": ("virtfs.fuse.names",),
    "pyroute2": ("virtfs.host",),
    "prometheus_client": ("virtfs.files.metrics",),
    "anyio": ("virtfs.aio",),
    "pytest": ("virtfs.testing.plugin",),
    "scapy": ("virtfs.scapy",),
    "ctypes": ("virtfs.host", "virtfs.fuse.mount"),
    "fcntl.ioctl": ("virtfs.host", "virtfs.fuse.mount"),
    # The locale must not decide what a name is: names are decoded with core.bytestext, and only paths with these two.
    "locale": (),
    "os.fsencode": _PATHS,
    "os.fsdecode": _PATHS,
    "trio": tuple(f"virtfs.{layer}" for layer in LAYERS if layer not in ("core", "host", "client", "testing")),
}

# core makes no system calls: its callers pass it the time and the data that they have read.
NOT_IN_CORE = {"asyncio", "ctypes", "fcntl", "mmap", "multiprocessing", "os", "pathlib", "resource", "select"}
NOT_IN_CORE |= {"selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of every import in a module, and of every use of the functions in DOORS."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    yield node.lineno, f"{module}.{alias.name}"
            case ast.ImportFrom():
                yield node.lineno, "(relative)"
            case ast.Attribute(value=ast.Name(id="fcntl"), attr="ioctl"):
                yield node.lineno, "fcntl.ioctl"
            case ast.Attribute(value=ast.Name(id="os"), attr="fsencode" | "fsdecode" as attribute):
                yield node.lineno, f"os.{attribute}"


def layer(module: str) -> int:
    """Return the index of a module's layer. A module outside the layers (virtfs, virtfs.__main__) is above them all."""
    folder = folder_of(module)
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def folder_of(module: str) -> str:
    """Return the name of a module's layer, or the name of a module outside the layers."""
    first = module.partition(".")[2].partition(".")[0]
    return BESIDE.get(first, first)


def within(module: str, doors: tuple[str, ...]) -> bool:
    return any(module == door or module.startswith(door + ".") for door in doors)


def objection(module: str, imported: str) -> str | None:
    """Return why `module` may not import `imported`, or None if it may."""
    top = imported.partition(".")[0]
    if imported == "(relative)":
        return "import by the full name"
    if top == "virtfs":
        # The package "virtfs" itself holds only the version, which every layer may import.
        inside = imported.count(".") and not imported.startswith("virtfs.__")
        if inside and folder_of(module) in ("client", "testing") and folder_of(imported) not in OF_USERS:
            return "client and testing import only core: their users need neither a server nor the libraries of one"
        upward = inside and layer(imported) > layer(module)
        return "imports go down only: " + " < ".join(LAYERS) if upward else None
    for library, doors in DOORS.items():
        if imported == library or imported.startswith(library + "."):
            return None if within(module, doors) else f"only {', '.join(doors)} may import it"
    if top not in sys.stdlib_module_names:
        return "a library that the project does not use"
    if within(module, ("virtfs.core",)) and top in NOT_IN_CORE and imported != "os.environ":
        return "core makes no system call"
    return None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=module_name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    module = module_name(path)
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: {imported}: {why}"
        for line, imported in imports(path)
        if (why := objection(module, imported))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=module_name)
def test_a_docstring_that_lists_modules_lists_them_all(path: Path) -> None:
    """A line of such a list is a name (with "/" after a folder's), at least two spaces, and a description."""
    listed = re.findall(r"^ *(\w+/?) {2,}\S", ast.get_docstring(parsed(path)) or "", re.MULTILINE)
    modules = [f"{found.parent.name}/" for found in path.parent.glob("*/__init__.py")]
    modules += [found.stem for found in path.parent.glob("[!_]*.py")]
    if listed:
        assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("virtfs.core.grammar", "virtfs.host.tap"),
        ("virtfs.host.tap", "virtfs.files.frame.Frame"),
        ("virtfs.daemon.service", "virtfs.cli.main"),
        ("virtfs.core.virt", "os"),
        ("virtfs.core.virt", "trio"),
        ("virtfs.core.virt", "socket.socket"),
        ("virtfs.host.tap", "trio.lowlevel"),
        ("virtfs.daemon.kernel", "pyroute2.NetNS"),
        ("virtfs.fuse.channel", "pyfuse3"),
        ("virtfs.fuse.channel", "fcntl.ioctl"),
        ("virtfs.host.rtnl", "os.fsencode"),
        ("virtfs.cli.main", "locale.setlocale"),
        ("virtfs.client.port", "virtfs.host.tap"),
        ("virtfs.aio", "virtfs.daemon.service"),
        ("virtfs.testing.server", "virtfs.daemon.service"),
        ("virtfs.testing.lab", "pytest"),
        ("virtfs.daemon.service", "virtfs.client.mount"),
        ("virtfs.client.mount", "virtfs.testing.lab"),
        ("virtfs.client.port", "trio"),
        ("virtfs.client.port", "anyio"),
        ("virtfs.files.frame", "ctypes"),
        ("virtfs.cli.main", "click"),
        ("virtfs.files.frame", "(relative)"),
    ],
)
def test_a_wrong_import_would_be_seen(module: str, imported: str) -> None:
    assert objection(module, imported)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("virtfs.core.virt", "dataclasses.dataclass"),
        ("virtfs.files.frame", "virtfs.core.errors.VirtError"),
        ("virtfs.fuse.channel", "fcntl.fcntl"),
        ("virtfs.cli.main", "virtfs"),
        ("virtfs.files.text", "virtfs.__version__"),
        ("virtfs.__main__", "virtfs.cli.main"),
        ("virtfs.client.port", "virtfs.core.framestream.PREFIX"),
        ("virtfs.aio", "virtfs.client.port.Port"),
        ("virtfs.cli.main", "virtfs.client.mount"),
    ],
)
def test_a_right_import_is_let_pass(module: str, imported: str) -> None:
    assert objection(module, imported) is None


def modules() -> dict[str, set[str]]:
    """Return the modules of virtfs that each module of virtfs imports."""
    paths = {module_name(path): path for path in ROOT.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = {name for _, name in imports(path)}
        found[module] = {other for other in paths if any(within(name, (other,)) for name in names)} - {module}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of an import cycle, or an empty list if there is none."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if other.count(".") > 1 and (found := follow(other, [*way, module])):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := follow(module, []))), [])


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(modules()) == []
    assert circle({"a.b.c": {"a.b.d"}, "a.b.d": {"a.b.c"}}) == ["a.b.c", "a.b.d", "a.b.c"]


def callables(tree: ast.Module) -> set[str]:
    """Return the names of public attributes in which the classes of a module keep a function to call."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=kind):
                if "Callable" in ast.unparse(kind) and not ast.unparse(kind).startswith(("list", "dict")):
                    found.add(name)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=ast.Lambda()):
                found.add(name)
    return {name for name in found if not name.startswith("_")}


def set_from_outside(tree: ast.Module) -> set[str]:
    """Return the names of the attributes that a module sets on objects other than self."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


def test_no_callback_is_assigned_from_outside() -> None:
    """A callback is a constructor argument, or an entry in a list of listeners (doc/design.md, "Callbacks")."""
    trees = [parsed(path) for path in sorted(ROOT.rglob("*.py"))]
    hooks = set().union(*map(callables, trees))
    assert hooks & set().union(*map(set_from_outside, trees)) == set()
    wired = ast.parse("class A:\n def __init__(self): self.told = lambda: None\na.told = print")
    assert callables(wired) & set_from_outside(wired) == {"told"}


# The modules that may start a task or a thread. Others pass a function to forward.supervisor.
STARTERS = {
    "open_nursery": ("virtfs.forward.supervisor",),
    "start_soon": ("virtfs.forward.supervisor",),
    "spawn_system_task": (),
    "start_thread_soon": (),
    "Thread": ("virtfs.host.threads", "virtfs.daemon.diagnosis", "virtfs.cli.log_writer", "virtfs.cli.shell_init"),
}


def starts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each function that starts a task or a thread."""
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in STARTERS:
            yield node.lineno, name  # type: ignore[attr-defined]


def test_one_module_starts_all_tasks() -> None:
    """A task started elsewhere would end the mount if it failed (doc/design.md, "Errors")."""
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, name in starts(parsed(path))
        if module_name(path) not in STARTERS[name]
    ]
    assert not wrong, "\n".join(wrong)
    assert list(starts(ast.parse("async with trio.open_nursery() as n:\n n.start_soon(f)"))) == [
        (1, "open_nursery"),
        (2, "start_soon"),
    ]


TESTS = Path(__file__).parent
FOLDERS = sorted(path.name for path in TESTS.iterdir() if path.is_dir() and list(path.glob("*.py")))


@pytest.mark.parametrize("folder", FOLDERS)
def test_test_folders_share_only_the_harness(folder: str) -> None:
    """Code that several test folders need is in tests/harness, which imports nothing from those folders."""
    others = {*FOLDERS} - {folder, "harness"}
    wrong = [
        f"{path.relative_to(TESTS)}:{line}: {imported}"
        for path in sorted((TESTS / folder).rglob("*.py"))
        for line, imported in imports(path)
        if imported.partition(".")[0] in others
    ]
    assert not wrong, "\n".join(wrong)


# Modules that need no root: they make no namespace, tap or mount, and start no program.
_PURE = ("captured", "channels", "in_trio", "recorded", "rings", "savefiles", "waiting", "wires", "written")
PURE_HARNESS = {f"harness.{name}" for name in _PURE}


def needs_no_root(folder: str) -> bool:
    """Return whether the only harness modules that a folder imports are in PURE_HARNESS."""
    used = {imported for path in (TESTS / folder).rglob("*.py") for _, imported in imports(path)}
    return {name.rpartition(".")[0] for name in used if name.startswith("harness.")} <= PURE_HARNESS


def test_make_test_pure_runs_the_folders_that_need_no_root() -> None:
    listed = re.findall(r"^PURE = (.*)$", (TESTS.parent / "Makefile").read_text(), re.MULTILINE)
    assert listed == [" ".join(filter(needs_no_root, FOLDERS))]
