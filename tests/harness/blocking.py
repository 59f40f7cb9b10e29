"""Finds calls that may block and are made in trio's thread, where they would hold up every frame and every answer.

Every server that tests fork is watched: such a call is written to its standard error, and its mount's test fails.
"""

import functools
import grp
import pwd
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import trio

from virtfs.daemon.statefile import StateFile
from virtfs.host import bpf, features, netns, tap
from virtfs.host.ring import PacketRing
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap import Tap

# A lookup of a name may ask a server. rtnetlink, ethtool and the ioctls of a tap wait for rtnl_mutex (drivers/net/tun.c
# __tun_chr_ioctl). A tap and a ring are closed behind RCU. A call in another namespace and a compiled filter wait for a
# thread. The rest waits for a disk or a child.
DOORS: list[tuple[object, str]] = [
    (pwd, "getpwnam"),
    (pwd, "getpwuid"),
    (grp, "getgrnam"),
    (grp, "getgrgid"),
    (socket, "getaddrinfo"),
    (time, "sleep"),
    (subprocess, "Popen"),
    (Rtnl, "ask"),
    (Rtnl, "dump"),
    (netns, "call_apart"),
    (bpf, "call_apart"),
    (features, "keep_wanted"),
    (tap, "_open_device"),
    (Tap, "_tell"),
    (Tap, "name"),
    (Tap, "netns"),
    (Tap, "close"),
    (PacketRing, "close"),
    (StateFile, "_replace"),
]


def watch() -> None:
    """Watch this process from now on."""
    for place, name in DOORS:
        real = getattr(place, name)
        setattr(place, name, _watched(f"{getattr(place, '__name__', place)}.{name}", real))


def _watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _in_trio():
            stack = "".join(traceback.format_stack(limit=8))
            print(f"Error: blocking call in trio's thread: {name}\n{stack}", file=sys.stderr, flush=True)
        return real(*args, **kwargs)

    return call


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
