"""Imports go one way only, and each foreign library has one door (doc/design.md, "Layers")."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "virtfs"
LAYERS = ("core", "host", "forward", "files", "fuse", "daemon", "client", "cli")

# Which modules may import what is not the standard library's, or is a system call's door.
DOORS = {
    "pyfuse3": ("virtfs.fuse.names",),
    "pyroute2": ("virtfs.host",),
    "prometheus_client": ("virtfs.files.metrics",),
    "ctypes": ("virtfs.host", "virtfs.fuse.mount"),
    "fcntl.ioctl": ("virtfs.host", "virtfs.fuse.mount"),
    "trio": tuple(f"virtfs.{layer}" for layer in LAYERS if layer not in ("core", "host")),
}

# core thinks and does nothing else: it is told the time, and what was read.
NOT_IN_CORE = {"asyncio", "ctypes", "fcntl", "mmap", "multiprocessing", "os", "pathlib", "resource", "select"}
NOT_IN_CORE |= {"selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the dotted name of everything a module imports, and of fcntl.ioctl where it is used."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
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


def layer(module: str) -> int:
    """Where it stands; what lies beside the layers (virtfs, virtfs.__main__) is above them all."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else len(LAYERS)


def within(module: str, doors: tuple[str, ...]) -> bool:
    return any(module == door or module.startswith(door + ".") for door in doors)


def objection(module: str, imported: str) -> str | None:
    """Why this module may not import that, or None."""
    top = imported.partition(".")[0]
    if imported == "(relative)":
        return "import by the full name"
    if top == "virtfs":
        # "virtfs" itself holds the version and nothing else.
        inside = imported.count(".") and not imported.startswith("virtfs.__")
        upward = inside and layer(imported) > layer(module)
        return "imports go down only: " + " < ".join(LAYERS) if upward else None
    for library, doors in DOORS.items():
        if imported == library or imported.startswith(library + "."):
            return None if within(module, doors) else f"its door is {', '.join(doors)}"
    if top not in sys.stdlib_module_names:
        return "a library that the project does not use"
    if within(module, ("virtfs.core",)) and top in NOT_IN_CORE:
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
    ],
)
def test_a_right_import_is_let_pass(module: str, imported: str) -> None:
    assert objection(module, imported) is None
