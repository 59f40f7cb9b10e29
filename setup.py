"""The compiled modules, which are optional; pyproject.toml has everything else.

Without a compiler or the kernel's headers, Python code does the same work (virtfs/core/compiled.py).
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(Path("virtfs").rglob("*.pyx"))
setup(ext_modules=[Extension(".".join(path.with_suffix("").parts), [str(path)], optional=True) for path in SOURCES])
