"""The command `check`: reports the error that a line would cause, without running the line.

Rights, ranges, and the names in the line are checked against the current state. Errors that only the kernel can
detect, for example that an interface has no IPv6, appear only when the line runs.
"""

import errno
import os
from functools import partial

from virtfs.core.bridge import Bridge
from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action, Command, parsing_verbs
from virtfs.core.ids import Unit, User
from virtfs.core.ip import IpInterface
from virtfs.core.socketname import SocketName
from virtfs.core.verbs import BRIDGE
from virtfs.core.virt import Virt
from virtfs.daemon.bridges import Bridges
from virtfs.daemon.cables import Cables
from virtfs.daemon.interface import Interface
from virtfs.daemon.kernel import Kernel
from virtfs.daemon.lifecycle import Lifecycle
from virtfs.daemon.netns_verb import refuse_moves
from virtfs.daemon.registry import Registry
from virtfs.daemon.state import State
from virtfs.daemon.virt_checks import VirtChecks
from virtfs.forward.slices import in_steps
from virtfs.host.bpf import compile_filter
from virtfs.host.membership import expect_bridge
from virtfs.host.netnames import open_netns
from virtfs.host.netns import inside
from virtfs.host.tap_protocol import Placed


class LineChecks:
    """Checks whole lines. The caller holds the lock, and has checked that the user may write to the ctl."""

    def __init__(
        self,
        kernel: Kernel,
        registry: Registry,
        lifecycle: Lifecycle,
        bridges: Bridges,
        cables: Cables,
        checks: VirtChecks,
        state: State,
    ) -> None:
        """state: has the lines of lost interfaces, and the failed lines, which `destroy` can drop."""
        self._kernel = kernel
        self._registry = registry
        self._lifecycle = lifecycle
        self._bridges = bridges
        self._cables = cables
        self._checks = checks
        self._state = state
        self._failed = state.failed

    async def command(self, command: Command, user: User) -> None:
        """Check a line of the mount's ctl. VirtError: the error that the line would cause."""
        if command.kind in ("mark", "retry"):
            return
        if command.kind == "destroy" and (command.target is None or self._failed.about(command.target)):
            return
        if isinstance(command.target, str):
            await self._bridges.check(command)
            return
        interface = None if command.target is None else self._registry.find(command.target)
        if command.kind == "create":
            self._registry.expect_none(command.target)
        if command.kind in ("create", "ensure") and interface is None:
            self._lifecycle.check_room()
            await self._verbs(None, command.actions, user)
            return
        existing = self._existing(command.target)
        if command.kind in ("cable", "uncable"):
            peer = command.peer
            other = peer if peer is None or isinstance(peer, SocketName) else self._existing(peer)
            await self._cable(command, existing, other, user)
            return
        if command.kind == "ensure" and existing.virt.lost:
            await self.again(existing, command, user)
        elif command.kind != "destroy":
            await refuse_moves(self._kernel, existing, command.actions)
            await self._verbs(existing, command.actions, user)

    async def again(self, interface: Interface, command: Command, user: User) -> None:
        """Check that `ensure` can make a lost interface again, and the other end of its cable if that is lost too.

        VirtError: as for command().
        """
        for one in self._cables.lost_with(interface):
            if not one.virt.saved:
                one.expect_tap()  # it has no lines
            lines = (line for line in self._state.again(one.virt) if line.target == one.virt.unit)
            for line in (line for line in lines if line.kind != "cable"):
                try:
                    await self._verbs(None, line.actions, user)
                except VirtError as refusal:
                    name = one.virt.name
                    sentence = f'cannot make {name} again: {refusal.strerror}: "destroy {name}" drops its lines'
                    raise VirtError(refusal.errno, sentence) from refusal
        await self._verbs(None, command.actions, user)

    async def verbs(self, of: Virt | Bridge, text: str, user: User) -> None:
        """Check a line of the ctl of an interface or a bridge. VirtError: the error that the line would cause."""
        if isinstance(of, Bridge):
            await self._bridges.check_change(of, await in_steps(parsing_verbs(text, BRIDGE)), user)
        else:
            await self._verbs(self._registry.of(of), await in_steps(parsing_verbs(text)), user)

    async def _verbs(self, interface: Interface | None, actions: tuple[Action, ...], user: User) -> None:
        await self._checks.check(interface, actions, user)
        tap = None if interface is None or interface.virt.lost else interface.tap
        addresses = set[IpInterface](() if interface is None else interface.virt.host.addresses)
        namespace: str | None = None  # the argument of the last verb `netns` so far in the line
        for action in actions:
            match action:
                case Action("netns", (str(name),)):
                    namespace = name
                    await self._kernel.call(_expect_netns, name)
                case Action("bridge", (str(name),)):
                    where = tap if namespace is None else None
                    await self._kernel.call(self._expect_bridge, name, where, namespace or "")
                case Action("filter", (str(expression),)):
                    await self._kernel.call(compile_filter, expression)
                case Action("inet" | "inet6", (address,)):
                    addresses.add(address)  # type: ignore[arg-type]
                case Action("-inet" | "-inet6", (address,)):
                    addresses -= _removed(addresses, address)

    async def _cable(
        self, command: Command, first: Interface, second: Interface | SocketName | None, user: User
    ) -> None:
        if command.kind == "uncable" or second is None:
            self._cables.get(first, second)
            return
        await self._checks.check(None, command.actions, user)
        self._cables.check_join(first, second)

    def _existing(self, unit: Unit | str | None) -> Interface:
        if not isinstance(unit, int):
            raise VirtError(errno.EINVAL, "the command needs an interface")
        return self._registry.get(unit)

    def _expect_bridge(self, name: str, tap: Placed | None, namespace: str) -> None:
        """Check that a bridge exists in the network namespace of `tap`, or in `namespace` if `tap` is None. Blocks."""
        there = open_netns(namespace) if tap is None else tap.netns()
        try:
            inside(there, partial(expect_bridge, self._kernel.links, name))
        finally:
            os.close(there)


def _expect_netns(name: str) -> None:
    """Check that a network namespace exists. Blocks."""
    os.close(open_netns(name))


def _removed(addresses: set[IpInterface], address: object) -> set[IpInterface]:
    """Return the addresses that the verb -inet or -inet6 removes. VirtError: EADDRNOTAVAIL, there is none."""
    found = {one for one in addresses if address in (one, one.ip)}
    if not found:
        raise VirtError(errno.EADDRNOTAVAIL, f'address "{address}": the interface does not have this address')
    return found
