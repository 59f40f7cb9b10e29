"""Import pyroute2's message classes without the rest of pyroute2.

`import pyroute2.netlink` first runs pyroute2/__init__.py, which imports every part of the library, including its
databases and asyncio. That takes a third of a server's start-up time, and the message classes need none of it. So
install() registers a stand-in module for the package. Submodules are found as usual, but pyroute2/__init__.py does not
run. The first access to a public name that is not a submodule loads the whole package.
"""

import importlib
import importlib.util
import sys
from types import ModuleType

_NAME = "pyroute2"


class _Package(ModuleType):
    """The stand-in for the package. Access to a name that is not a submodule runs the __init__.py of the package."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return importlib.import_module(f"{_NAME}.{name}")
        except ModuleNotFoundError:
            pass
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def install() -> None:
    """Put the stand-in in sys.modules, unless pyroute2 is already loaded.

    ModuleNotFoundError: pyroute2 is not installed.
    """
    if _NAME in sys.modules:
        return
    spec = importlib.util.find_spec(_NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    package = _Package(_NAME)
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
    package.__file__ = spec.origin
    sys.modules[_NAME] = package
