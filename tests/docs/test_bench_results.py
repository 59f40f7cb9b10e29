"""The option --json of the benchmarks: each program keeps its results beside those of the others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .markdown import ROOT

BENCHMARKS = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "def main" in path.read_text())
_PROGRAM = """
import argparse, sys
sys.path.insert(0, "bench")
from results import TIMES, Results
parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("figures", type=float, nargs="+")
Results.option(parser)
options = parser.parse_args()
sys.argv[0] = options.name
results = Results(options.json)
results.keep("read60, one", "virtfs", TIMES, options.figures, against="raw tap", least=0.9)
results.save()
"""


def kept(file: Path, *arguments: str) -> Any:
    """Run a program that keeps figures, and return the contents of the file."""
    subprocess.run([sys.executable, "-c", _PROGRAM, *arguments, "--json", file], cwd=ROOT, check=True)
    return json.loads(file.read_text())


def test_a_run_replaces_its_own_results_alone(tmp_path: Path) -> None:
    file = tmp_path / "build/bench.json"
    kept(file, "bench/one.py", "1")
    kept(file, "bench/other.py", "2")
    results = kept(file, "bench/one.py", "0.5", "0.95", "0.8")
    assert list(results) == ["one", "other"]
    assert results["one"]["arguments"] == ["bench/one.py", "0.5", "0.95", "0.8"]
    assert results["one"]["figures"] == [
        {"what": "read60, one", "program": "virtfs", "unit": "times", "against": "raw tap"}
        | {"median": 0.8, "lowest": 0.5, "highest": 0.95, "goal": 0.9, "reached": False}
    ]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_the_option(name: str) -> None:
    text = (ROOT / f"bench/{name}.py").read_text()
    assert ("Results.option(parser)" in text) == ("ArgumentParser(" in text)
