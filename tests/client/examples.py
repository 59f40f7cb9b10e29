"""Runs the examples in the docstrings of the API, in a program that has a mount at /mnt/virt."""

import asyncio
import doctest
import inspect
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import trio
from harness.places import DIR
from harness.waiting import PATIENCE

import virtfs
from virtfs.client import lines, values

FRAME = b"\xff" * 6 + bytes.fromhex("020000000006") + b"\x88\xb5" + bytes(46)

# A pcap file with three frames.
RECORDING = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + 3 * (
    struct.pack("<IIII", 0, 0, len(FRAME), len(FRAME)) + FRAME
)


def documented() -> Iterator[tuple[str, object]]:
    """Yield each public name of the API with its object: classes, functions, and the members of classes."""
    for name in virtfs.__all__:
        thing = getattr(virtfs, name)
        if inspect.ismodule(thing):
            for member in thing.__all__:
                yield from _members(f"{name}.{member}", getattr(thing, member))
        else:
            yield from _members(name, thing)


def _members(name: str, thing: object) -> Iterator[tuple[str, object]]:
    yield name, thing
    if inspect.isclass(thing):
        for member in dir(thing):
            found = inspect.getattr_static(thing, member)
            # A member of a base class of the API counts for each class that inherits it.
            if (not member.startswith("_") or _our_operator(thing, member)) and not _is_field(thing, member):
                yield f"{name}.{member}", found


def _our_operator(of: type, member: str) -> bool:
    return (
        member in ("__getitem__", "__contains__", "__iter__", "__aiter__", "__len__", "__next__")
        and any(member in vars(base) for base in of.__mro__ if base.__module__.startswith("virtfs."))
        and bool(getattr(inspect.getattr_static(of, member), "__doc__", None))
    )


def _is_field(of: type, member: str) -> bool:
    """Return whether a member is a field, which the docstring of its class explains, or comes from another library."""
    if isinstance(inspect.getattr_static(of, member), values.Value):
        return False
    return inspect.ismemberdescriptor(inspect.getattr_static(of, member)) or not any(
        member in vars(base) for base in of.__mro__ if base.__module__.startswith("virtfs.")
    )


def docstring(thing: object) -> str:
    """Return a docstring, or "" if there is none."""
    return inspect.getdoc(thing) or ""


def ping(v: virtfs.Virt) -> None:
    """Make the host send a frame: it looks for a neighbour."""
    v.set(inet="10.0.3.1/24")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("10.0.3.2", 9))


class Laboratory:
    """A mount with virt3, virt4 and bridge0."""

    def __init__(self) -> None:
        self.net = virtfs.Mount(DIR)

    def renew(self) -> None:
        """Make the interfaces and the bridge anew."""
        for thing in (*self.net.bridges.values(), *self.net):
            with suppress(OSError):  # an interface of clone may vanish meanwhile
                thing.destroy()
        self.net.ctl("create 3 up\ncreate 4 up\ncreate bridge0")
        self.net[3].wait("carrier", timeout=PATIENCE)

    def names(self) -> dict[str, Any]:
        """Return the names that examples use."""
        net = self.net
        if not (3 in net and 4 in net and "bridge0" in net.bridges):
            self.renew()
        known = {"virtfs": virtfs, "net": net, "v": net[3], "w": net[4], "b": net.bridges["bridge0"]}
        modules = {"anyio": anyio, "asyncio": asyncio, "os": os, "select": select, "trio": trio}
        return {**known, **modules, "frame": FRAME, "recording": RECORDING, "ping": ping, **vars(lines), **vars(values)}

    def passes(self, name: str, text: str, report: Callable[[str], object]) -> bool:
        """Run the examples of a docstring. report: called with the text about each failure."""
        test = doctest.DocTestParser().get_doctest(text, self.names(), name, None, 0)
        return not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report).failed


def run(things: list[tuple[str, str]]) -> str:
    """Run the examples of docstrings, given by name. Returns a report of those that failed.

    Examples that fail after other examples are run again on fresh interfaces. Making these for each takes too long.
    """
    lab = Laboratory()
    report: list[str] = []
    for name, text in things:
        if not lab.passes(name, text, lambda said: None):
            lab.renew()
            lab.passes(name, text, report.append)
    return "".join(report)
