"""Print constraints for pip: for "oldest" the oldest version of each library that pyproject.toml allows, else none.

Usage: tools/constraints.py newest|oldest
"""

import sys
import tomllib
from pathlib import Path


def main(which: str) -> None:
    """Print a constraint for each of the project's dependencies."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    if which == "oldest":
        for requirement in project["dependencies"]:
            print(requirement.replace(">=", "=="))
    elif which != "newest":
        sys.exit(f'virtfs: LIBRARIES="{which}" is neither "oldest" nor "newest"')


main(sys.argv[1])
