"""The verb `netns`: moves a tap to another network namespace."""

import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import replace

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command
from virtfs.core.virt import HostEnd
from virtfs.daemon.follow import Follower
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.host.links import Links
from virtfs.host.membership import join
from virtfs.host.netnames import open_netns
from virtfs.host.netns import same_netns
from virtfs.host.tap_protocol import TapDevice

log = logging.getLogger(__name__)


def destination(actions: tuple[Action, ...]) -> str:
    """Return the argument of the last verb `netns` in a line, or "" if the line has no such verb."""
    return next((str(action.args[0]) for action in reversed(actions) if action.verb == "netns"), "")


def move_first(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Return the verbs of a line that creates an interface, with its last `netns` first.

    A move sets an interface down and up again. So a tap that moves before `up` is set up once, and one event tells it.
    """
    moves = [action for action in actions if action.verb == "netns"]
    return (*moves[-1:], *(action for action in actions if action.verb != "netns"))


def without_move(command: Command, of_host: frozenset[str]) -> Command:
    """Return a line without its last verb `netns`, and without later verbs that act on the host's end.

    of_host: the verbs that act on the host's end.
    """
    actions = command.actions
    at = max(at for at, action in enumerate(actions) if action.verb == "netns")
    return replace(command, actions=actions[:at] + tuple(a for a in actions[at:] if a.verb not in of_host))


async def move(kernel: Kernel, follower: Follower, interface: Interface, name: str) -> None:
    """Move the tap to a network namespace. Then restore the addresses and the UP flag, which the move removes.

    VirtError: errors from open_netns() and from the kernel. After an error the tap is in its old namespace.
    """
    await kernel.call(_moved, kernel.links, interface.tap, name, interface.virt.host)
    if not interface.virt.lost:
        interface.virt.move(name)
    try:
        await follower.look_for(interface)
    except OSError as refusal:  # the move itself has succeeded
        log.info("%s: cannot query the moved tap: %s; trying again", interface.virt.name, refusal.strerror)
        follower.doubt(interface)


def _moved(links: Links, tap: TapDevice, name: str, host: HostEnd) -> None:
    """Move the tap. Blocks. If a step fails, the tap is moved back."""
    with ExitStack() as held:

        def hold(descriptor: int) -> int:
            held.callback(os.close, descriptor)
            return descriptor

        namespace, before = hold(open_netns(name)), hold(tap.netns())
        # Reserve two descriptors and close them after the move, so that the next steps do not fail with EMFILE.
        with ExitStack() as spare:
            for _ in range(2):
                spare.callback(os.close, os.dup(namespace))
            links.move(tap, namespace)
        try:
            _give_back(links, tap, host)
        except OSError:
            links.move(tap, before)
            _give_back(links, tap, host)
            if host.bridge:
                join(tap, links, host.bridge)
            raise


def _give_back(links: Links, tap: TapDevice, host: HostEnd) -> None:
    """Restore the settings that a move removes."""
    links.quiet(tap)
    for address in host.addresses:
        if address not in links.addresses(tap):
            links.add_address(tap, address)
    links.set(tap, up=host.up)


async def refuse_moves(kernel: Kernel, interface: Interface, actions: tuple[Action, ...]) -> None:
    """Refuse a line that has verbs after the `netns` that moves an existing interface.

    A move removes routes and queueing disciplines, and moving back would not restore them. So a move cannot be undone,
    and netns must be the last verb. A tap that is already in the namespace does not move, so its line is accepted.
    VirtError: EINVAL, the line is refused; errors from open_netns().
    """
    for action in actions[:-1]:
        if action.verb == "netns" and not interface.virt.lost:
            name = str(action.args[0])
            if not await kernel.call(_is_in, interface.tap, name):
                what = f'netns would move the existing {interface.virt.name} to "{name}"'
                raise VirtError(errno.EINVAL, f"{what}, which cannot be undone: put netns at the end of the line")


def _is_in(tap: TapDevice, name: str) -> bool:
    """Return whether a tap is in the network namespace `name`. Blocks."""
    namespace = open_netns(name)
    try:
        there = tap.netns()
        try:
            return same_netns(namespace, there)
        finally:
            os.close(there)
    finally:
        os.close(namespace)
