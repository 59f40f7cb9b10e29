"""Programs of others: those that read and write capture files, and those of systemd."""

import shutil
import subprocess
from pathlib import Path

import pytest


def need(tool: str) -> str:
    """Return the path of a program. Skips the test if it is not installed."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def run(tool: str, *words: str | Path) -> str:
    """Run a program that must succeed, and return its output."""
    return subprocess.run([need(tool), *words], capture_output=True, text=True, check=True).stdout


def complaints(tool: str, *words: str | Path) -> str:
    """Run a program that must succeed, and return its standard error."""
    return subprocess.run([need(tool), *words], capture_output=True, text=True, check=True).stderr


def everything(tool: str, *words: str | Path) -> str:
    """Run a program, and return its standard output and standard error together, whatever its status is."""
    pipe = subprocess.PIPE
    return subprocess.run([need(tool), *words], stdout=pipe, stderr=subprocess.STDOUT, text=True, check=False).stdout
