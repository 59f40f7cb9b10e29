"""Build the distributions of this checkout, and clean environments to install them into, without a network."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from harness.serving import PROJECT

# What a checkout has besides its sources; see .gitignore.
_NOT_SOURCES = (
    *(".venv", ".git", "__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".hypothesis", "fuzz-findings"),
    *(f"{path.stem}.c" for path in (PROJECT / "virtfs").rglob("*.pyx")),
    "*.so",
)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
SECONDS = 300.0  # time-out of one command; a loaded machine takes long to compile


def run(words: Sequence[str | Path], directory: Path = PROJECT, **environment: str) -> str:
    """Run a program that must succeed, and return its output. AssertionError: it failed, with everything it printed."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        words,
        cwd=directory,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def sources(directory: Path) -> Path:
    """Copy the sources of the checkout, so that a build leaves nothing in it. Returns the path of the copy."""
    return shutil.copytree(PROJECT, directory / "sources", symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCES))


def sdist(source: Path, directory: Path) -> Path:
    """Build the source distribution of a copy of the checkout, as `python -m build --sdist` does."""
    directory.mkdir()
    build = f"import setuptools.build_meta as b; b.build_sdist({str(directory)!r})"
    run([sys.executable, "-c", build], source)
    (archive,) = directory.iterdir()
    return archive


def wheel(archive: Path, directory: Path) -> Path:
    """Build the wheel from a source distribution, as `python -m build --wheel` does."""
    shutil.unpack_archive(archive, directory)
    (source,) = directory.iterdir()
    return _wheel(source, directory)


def plain_wheel(source: Path, directory: Path) -> Path:
    """Build the wheel from a copy of the checkout without the compiled modules, in a tenth of the time."""
    for path in (source / "virtfs").rglob("*.pyx"):
        path.unlink()
    directory.mkdir()
    return _wheel(source, directory)


def _wheel(source: Path, directory: Path) -> Path:
    run([sys.executable, "-c", f"import setuptools.build_meta as b; b.build_wheel({str(directory)!r})"], source)
    (built,) = directory.glob("*.whl")
    return built


def environment(directory: Path) -> Path:
    """Create an environment that has the libraries of this one, but no virtfs. Returns its path."""
    run([sys.executable, "-m", "venv", "--without-pip", directory])
    return with_libraries(directory)


def with_libraries(environment: Path) -> Path:
    """Give an environment the libraries of this one, but not its virtfs. Returns its path."""
    libraries = environment / "libraries"
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("platlib")).iterdir():
        if "virtfs" not in entry.name:
            (libraries / entry.name).symlink_to(entry)
    site = environment / Path(sysconfig.get_path("platlib")).relative_to(sys.prefix)
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return environment


def install(file: Path, environment: Path) -> None:
    """Install a wheel or a source distribution into an environment, as a user of pip does."""
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--no-compile"]
    run([*PIP, "--python", environment / "bin/python", "install", "-q", *offline, file])
