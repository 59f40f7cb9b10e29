"""The directory of a bridge: ctl, status in the format of brconfig(8), members, and the address table."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from virtfs.core import brconfig
from virtfs.core.bridge import Bridge
from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.script import Script
from virtfs.files.ctl import Ctl
from virtfs.files.node import ROOT, Directory
from virtfs.files.text import Text, Turn

# Runs the lines completed by one write to the ctl of a bridge.
RunBridge = Callable[[Bridge, Script, bytes, User, Turn], Awaitable[None]]


class Bridges(Protocol):
    """The operations of the daemon that these files need."""

    async def refresh(self, bridge: Bridge) -> None:
        """Update a bridge's state from the kernel. VirtError ENXIO: the bridge is gone."""

    def text(self, bridge: Bridge) -> str:
        """Return the commands that recreate the current state of a bridge."""


def bridge_directory(
    bridge: Bridge, bridges: Bridges, run: RunBridge, report: Callable[[VirtError, User], None]
) -> Directory:
    """Return the directory of one bridge.

    run: runs the commands that are written to the bridge's ctl. report: sets a user's last_error.
    """

    async def refresh() -> None:
        await bridges.refresh(bridge)

    def shown(text: Callable[[], str]) -> Text:
        return Text(ROOT, lambda user: text(), refresh=refresh)

    return Directory(
        ROOT,
        {
            "ctl": Ctl(
                ROOT,
                text=lambda user: bridges.text(bridge),
                run=lambda script, data, user, turn: run(bridge, script, data, user, turn),
                refused=report,
                refresh=refresh,
            ),
            "status": shown(lambda: brconfig.status(bridge)),
            "members": shown(lambda: brconfig.members(bridge.state)),
            "addresses": shown(lambda: brconfig.addresses(bridge.state)),
        },
        steady=True,
    )
