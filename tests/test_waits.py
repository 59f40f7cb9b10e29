"""No test gives up earlier than the others: time limits come from harness.waiting.

On a busy machine, a limit that is long enough for one test alone is too short in a run of the whole suite.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from harness.waiting import PATIENCE

TESTS = Path(__file__).parent
NAMED = {"timeout", "seconds"}  # keywords that are time limits in seconds
# Functions whose positional argument is one, and the argument's place.
PLACED = {"finished": 1, "fail_after": 0, "result": 0, "join": 0, "wait": 0, "until": 2, "settimeout": 0}
# What ping(8), arping(8) and timeout(1) are told. `ping -W` waits for nothing else if there has been an answer.
IN_A_SHELL = re.compile(r"ping [^|;&]*-w ?(\d+)|\btimeout -s \w+ (\d+)\b")


def limits(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Yield the line and the value of each time limit that is a number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [keyword.value for keyword in node.keywords if keyword.arg in NAMED]
            given += node.args[PLACED[name] :][:1] if name in PLACED else []
            for value in given:
                if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                    yield node.lineno, value.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in IN_A_SHELL.finditer(node.value):
                yield node.lineno, float(found[1] or found[2])


def too_short(text: str) -> list[int]:
    """Return the lines with limits below PATIENCE. Limits below a second are for what must not happen."""
    return [line for line, seconds in limits(ast.parse(text)) if 1 <= seconds < PATIENCE]


def test_all_tests_wait_long_enough() -> None:
    found = {str(path.relative_to(TESTS)): too_short(path.read_text()) for path in TESTS.rglob("*.py")}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_what_is_found() -> None:
    text = """
finished(program, 2)
program.wait(timeout=5)
with trio.fail_after(1):
    mount.sh("cat mtu", seconds=3)
until(done, "done", 4)
mount.sh("ping -c1 -w FEW 10.0.0.1")
mount.sh(f"exec timeout -s INT FEW cat {name}")
port.recv(timeout=0.05)
program.wait(timeout=60)
""".replace("FEW", "5")
    assert sorted(too_short(text)) == [2, 3, 4, 5, 6, 7, 8]
