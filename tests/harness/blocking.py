"""Finds blocking calls in trio's thread, where they would delay every frame and every answer.

Every server that tests fork is watched. It writes each such call to its standard error, and the test that made the
mount fails.
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
from virtfs.host import bpf, features, netns, sockets, tap
from virtfs.host.ring import PacketRing
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap import Tap

# Functions that may block. A name lookup may ask a server. rtnetlink, ethtool and the ioctls of a tap wait for
# rtnl_mutex (drivers/net/tun.c __tun_chr_ioctl). Closing a tap or a ring waits for RCU. A call in another namespace and
# the compilation of a filter wait for a thread. The remaining functions wait for a disk, a child process, or the
# look-up of a path, which can lead into the mount itself.
DOORS: list[tuple[object, str]] = [
    (pwd, "getpwnam"),
    (pwd, "getpwuid"),
    (grp, "getgrnam"),
    (grp, "getgrgid"),
    (socket, "getaddrinfo"),
    (time, "sleep"),
    (subprocess, "Popen"),
    (Rtnl, "ask"),
    (Rtnl, "ask_all"),
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
    (sockets, "connect_path"),
    (sockets, "connect_to"),
    (sockets, "bind_datagrams"),
    (sockets, "listen"),
    (sockets.OwnSocket, "close"),
]


def watch() -> None:
    """Report blocking calls in this process's trio thread from now on."""
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
