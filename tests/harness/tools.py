"""Programs of others: those that read and write capture files, and those of systemd. A module of the kernel."""

import glob
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


FILTERS = "/proc/sys/net/bridge/bridge-nf-call-*"  # the sysctls of the module br_netfilter


def need_bridge_filter() -> None:
    """Skip the test if this kernel has not loaded the module br_netfilter. A test must not load it for the host."""
    if not glob.glob(FILTERS):
        pytest.skip("kernel lacks br_netfilter, a module that is not loaded")


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
