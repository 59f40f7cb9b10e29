"""Import pyroute2's message classes without the rest of pyroute2, and only when they are first used.

Only bridges need these classes, so a server without bridges never imports them.

`import pyroute2.netlink` first runs pyroute2/__init__.py, which imports every part of the library, including its
databases and asyncio. That takes a third of a server's start-up time, and the message classes need none of it. So
install() registers a stand-in module for the package. Submodules are found as usual, but pyroute2/__init__.py does not
run. The first access to a public name that is not a submodule loads the whole package.
"""

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any, Final

_NAME = "pyroute2"

# Attributes that Linux 4.20, 5.0, 5.16 and 6.7 added to linux/if_link.h. pyroute2 0.9 does not know them.
_LATER: Final = (
    ("IFLA_BR_VLAN_STATS_PER_PORT", "uint8"),
    ("IFLA_BR_MULTI_BOOLOPT", "hex"),
    ("IFLA_BR_MCAST_QUERIER_STATE", "hex"),
    ("IFLA_BR_FDB_N_LEARNED", "uint32"),
    ("IFLA_BR_FDB_MAX_LEARNED", "uint32"),
)


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
    # importlib.util.find_spec() does the same, but importing importlib.util takes 5 ms.
    specs = (finder.find_spec(_NAME, None) for finder in sys.meta_path)
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    package = _Package(_NAME)
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
    package.__file__ = spec.origin
    sys.modules[_NAME] = package


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{_NAME}.netlink.rtnl.{name}")


@cache
def marshal() -> Any:
    """Return pyroute2's decoder of rtnetlink messages."""
    return _module("marshal").MarshalRtnl()


def ifinfmsg() -> Any:
    """Return a new message about a link."""
    return _link_message()()


def ndmsg() -> Any:
    """Return a new message about an entry of a neighbour or address table."""
    return _module("ndmsg").ndmsg()


@cache
def _link_message() -> Any:
    """Return the class ifinfmsg, extended with the attributes in _LATER that pyroute2 lacks."""
    link = _module("ifinfmsg").ifinfmsg
    known = link.ifinfo.bridge_data
    names = dict(known.nla_map)
    if later := tuple(entry for entry in _LATER if entry[0] not in names):
        data = type("bridge_data", (known,), {"nla_map": (*known.nla_map, *later)})
        link.ifinfo.register_link_kind(module={"bridge": data})
    return link
