"""Builds the examples in C by their Makefile. A warning is an error."""

import subprocess
from pathlib import Path

CFLAGS = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-O2"]
_MAKEFILE = Path(__file__).parents[2] / "examples/c/Makefile"


def command(name: str, folder: Path) -> list[str]:
    """Return the command that builds the program `name` in a folder."""
    quiet = ["--silent", "--no-print-directory"]
    return ["make", *quiet, "-f", str(_MAKEFILE), "-C", str(folder), f"CFLAGS={' '.join(CFLAGS)}", name]


def example(name: str, folder: Path) -> Path:
    """Build the program `name` in a folder, and return its path."""
    done = subprocess.run(command(name, folder), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder / name
