"""Find compiled functions and classes. The compiled modules (*.pyx) are optional; see doc/design.md."""

from importlib import import_module
from os import environ
from typing import Any


def compiled(module: str, name: str) -> Any:
    """Return a function or class of a compiled module, or None if the caller must use the Python version instead.

    None means that virtfs was installed without a compiler, or that the environment variable VIRTFS_COMPILED is "no".
    module: full name of the module.
    """
    if environ.get("VIRTFS_COMPILED") == "no":
        return None
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return None
