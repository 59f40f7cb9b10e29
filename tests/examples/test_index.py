"""examples/README.md lists every example, and each begins with a comment that says how to run it."""

import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BUILT = {"c/lwip", "c/responder", "c/stream"}  # by c/Makefile
FILES = {
    str(path.relative_to(EXAMPLES)): path
    for path in EXAMPLES.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
INDEX = FILES.pop("README.md").read_text()
PROGRAMS = sorted(name for name in FILES if name.endswith((".sh", ".py", ".c", ".go", ".rs")))


def test_the_index_lists_every_file() -> None:
    listed = re.findall(r"\]\(([^)]+)\)", INDEX)
    assert len(listed) == len(set(listed))
    assert set(listed) == FILES.keys() - BUILT


def test_each_line_has_its_columns() -> None:
    rows = [line for line in INDEX.splitlines() if line.startswith("| [")]
    assert all(row.count(" | ") + row.endswith(" | |") >= 2 for row in rows)
    assert {re.findall(r"\[([^]]+)\]", row)[0] for row in rows} >= {*PROGRAMS}


def head(text: str) -> str:
    """Return the comment or docstring at the beginning of a program."""
    if found := re.match(r'(?:#![^\n]*\n)?"""(.*?)"""|/\*(.*?)\*/', text, re.DOTALL):
        return found[1] or found[2]
    return "\n".join(takewhile(lambda line: line.startswith(("#", "//")), text.splitlines()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_says_how_to_run_it(name: str) -> None:
    folder = name.rpartition("/")[0]
    indented = re.findall(r"^(?: \*|#|//!?)?(?:   |\t)(.*)$", head(FILES[name].read_text()), re.MULTILINE)
    assert any(f"examples/{folder or name}" in line for line in indented)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".sh") or "/" not in name])
def test_scripts_are_executable(name: str) -> None:
    assert FILES[name].stat().st_mode & 0o111
    assert FILES[name].read_text().startswith("#!")


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name.endswith(".py") and "/" not in name])
def test_a_python_without_virtfs_is_said_in_a_sentence(name: str) -> None:
    """-S: Python without the packages of its environment, as the system's Python."""
    done = subprocess.run([sys.executable, "-S", "-E", FILES[name]], capture_output=True, text=True, cwd="/")
    assert done.returncode in (1, 2)
    assert re.fullmatch(rf"(usage: .*\n?)+|{name}: No module named '\w+': run it with the Python of .*\n", done.stderr)


def test_a_test_runs_each_program() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    names = {name: "examples/pytest" if name.startswith("pytest/") else Path(name).name for name in PROGRAMS}
    assert [name for name, named in names.items() if not re.search(rf"\b{re.escape(named)}\b", tests)] == []


@pytest.mark.parametrize("name", ["capture.sh", "frames.sh", "replay.sh", "sniff.sh", "two_hosts.sh"])
def test_a_script_without_its_arguments_prints_its_usage(name: str) -> None:
    done = subprocess.run([FILES[name]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: {name} ")
    assert done.stderr.count("\n") == 1
