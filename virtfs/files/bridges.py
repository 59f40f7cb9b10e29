"""bridge/bridge0/: a bridge's ctl, its state in brconfig's layout, its members, its table. All root's."""

from collections.abc import Callable
from typing import Protocol

from virtfs.core import brconfig
from virtfs.core.bridge import Bridge
from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.core.script import Script
from virtfs.files.ctl import Ctl
from virtfs.files.node import ROOT, Directory
from virtfs.files.text import Text


class BridgeCommands(Protocol):
    """What the daemon does for these files."""

    async def run(self, bridge: Bridge, script: Script, data: bytes, user: User, /) -> None:
        """One write to the ctl."""

    def refused(self, error: VirtError, user: User, /) -> None:
        """A part of a script that is not run, and why."""

    async def refresh_bridge(self, bridge: Bridge) -> None:
        """Ask the kernel how it is."""

    def bridge_state(self, bridge: Bridge) -> str:
        """The text of its ctl."""


def bridge_directory(bridge: Bridge, commands: BridgeCommands) -> Directory:
    """The files of one bridge."""

    async def refresh() -> None:
        await commands.refresh_bridge(bridge)

    def report(text: Callable[[], str]) -> Text:
        return Text(ROOT, lambda user: text(), refresh=refresh)

    return Directory(
        ROOT,
        {
            "ctl": Ctl(
                ROOT,
                text=lambda user: commands.bridge_state(bridge),
                run=lambda script, data, user: commands.run(bridge, script, data, user),
                refused=commands.refused,
                refresh=refresh,
            ),
            "status": report(lambda: brconfig.status(bridge)),
            "members": report(lambda: brconfig.members(bridge.state)),
            "addresses": report(lambda: brconfig.addresses(bridge.state)),
        },
    )
