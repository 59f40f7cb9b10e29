"""The results of a benchmark as JSON, for other programs: the option --json of each benchmark.

The file has an object with a member for each benchmark, named after its program. A run replaces its own member, so the
results of several programs come together in one file:

    {"bulk": {"arguments": ["read60"], "cpus": 2, "kernel": "6.18.5", "python": "3.11.2", "figures": [
      {"what": "read60, one", "program": "virtfs, stream", "unit": "times", "against": "virtfs, frame",
       "median": 7.3, "lowest": 6.9, "highest": 8.5, "goal": 8, "reached": false}]}}

The figures are medians over the rounds of a run. With `against`, a figure is the ratio of two programs in one round.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMES = "times"  # the unit of a ratio


class Results:
    """The figures of one run, to be saved in a file if the user wants that."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._figures: list[dict[str, Any]] = []

    @staticmethod
    def option(parser: argparse.ArgumentParser) -> None:
        """Add the option --json to the parser of a benchmark."""
        parser.add_argument("--json", metavar="FILE", type=Path, help="put the results into this file as well")

    def keep(
        self,
        what: str,
        program: str,
        unit: str,
        samples: Sequence[float],
        *,
        against: str = "",
        least: float | None = None,
        most: float | None = None,
    ) -> None:
        """Keep a figure, one sample for each round.

        program: what was measured. against: the program by whose result each sample was divided. least, most: the
        goal, if there is one.
        """
        median = statistics.median(samples)
        figure: dict[str, Any] = {"what": what, "program": program, "unit": unit}
        if against:
            figure["against"] = against
        figure |= {"median": median, "lowest": min(samples), "highest": max(samples)}
        if (goal := least or most) is not None:
            figure |= {"goal": goal, "reached": median >= goal if least else abs(median) <= goal}
        self._figures.append(figure)

    def save(self) -> None:
        """Replace this program's member of the file. Do nothing if the user has named no file."""
        if self._file is None:
            return
        name = Path(sys.argv[0]).stem
        run = {"arguments": _without_file(sys.argv[1:]), "cpus": len(os.sched_getaffinity(0))}
        run |= {"kernel": platform.release(), "python": platform.python_version(), "figures": self._figures}
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(dict(sorted((kept | {name: run}).items())), indent=1) + "\n")


def _without_file(arguments: list[str]) -> list[str]:
    """Return the arguments without --json and its value."""
    if "--json" in arguments:
        at = arguments.index("--json")
        return arguments[:at] + arguments[at + 2 :]
    return [word for word in arguments if not word.startswith("--json=")]
