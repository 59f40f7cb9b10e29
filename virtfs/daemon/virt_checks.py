"""Reject verbs that cannot succeed, before any verb of their line is carried out."""

import errno
from collections.abc import Callable
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import User
from virtfs.core.impairment import LIMIT_DEFAULT
from virtfs.core.limits import Limits
from virtfs.core.memory import SHARES, Kind
from virtfs.core.quantities import format_size
from virtfs.core.verbs import VIRT, find
from virtfs.core.virt import HostEnd
from virtfs.daemon.interface import Interface
from virtfs.daemon.userdb import Accounts
from virtfs.daemon.virt_verbs import EFFECTS
from virtfs.forward.slices import Slices

# The verbs that act on the host's end. They fail for a lost interface, which no longer has a host's end.
_OF_HOST = (
    "up down mtu queue taplink inet inet6 -inet -inet6 promisc -promisc bridge -bridge netns persist -persist"
    " upopen -upopen carrier filter -filter"
)
OF_HOST: Final = frozenset(_OF_HOST.split())
# The verbs that fail while a program has the tap: virtfs does not read the frames then, and afterwards restores the
# settings that the tap had before.
HELD: Final = frozenset(("impair", "netns", "taplink"))
# The verbs that need the descriptor of the tap.
OF_DESCRIPTOR: Final = frozenset(("persist", "-persist", "carrier", "filter", "-filter"))
_SKB = 800  # bytes that the kernel adds to the payload of a frame in a tap's queue (struct sk_buff, headroom, header)


class VirtChecks:
    """Checks verbs against the rights of the user, the mount's limits and the state of the interface."""

    def __init__(self, limits: Limits, accounts: Accounts) -> None:
        self._limits = limits
        self._accounts = accounts

    async def check(self, interface: Interface | None, actions: tuple[Action, ...], user: User) -> None:
        """Raise VirtError for the first verb that cannot succeed.

        interface: the interface that the line changes. None if the line creates an interface or a cable.
        EPERM: the user may not use the verb. ENXIO: the tap is gone. ERANGE: the value exceeds a limit of the mount.
        EINVAL: the verb, user or group is unknown. EBUSY: a program has the tap.
        ENOBUFS: the tap's queue could take too much kernel memory, or the history more than a user may have.
        """
        slices = Slices()
        for action in actions:
            await slices.pause()
            self._check_rights(interface, action, user)
            self._check_limits(action)
            match action:
                case Action("owner", (str(name),)):
                    await self._accounts.user_id(name)
                case Action("group", (str(name),)):
                    await self._accounts.group_id(name)
        # After the limits of the verbs, since a larger max_user_memory alone does not help beyond these.
        if interface is not None and not user.root:
            self._check_queue(interface.virt.host, actions)
            if interface.virt.owner != 0:
                self._check_history(actions)

    def _check_rights(self, interface: Interface | None, action: Action, user: User) -> None:
        verb = find(VIRT, action.verb)
        if verb is None or action.verb not in EFFECTS:
            raise VirtError(errno.EINVAL, f'unknown verb "{action.verb}"')
        if verb.root_only and not user.root:
            raise VirtError(errno.EPERM, f'only root may use "{action.verb}"')
        if interface is None:
            return
        virt = interface.virt
        if action.verb == "mode" and not user.root and user.uid != virt.owner:
            raise VirtError(errno.EPERM, 'only root and the owner may use "mode"')
        if action.verb == "link" and not user.root and virt.antispoof:
            raise VirtError(errno.EPERM, 'only root may use "link" while antispoof is on')
        holder = interface.ports.frame.seats.holder
        if holder is not None and (
            action.verb in HELD
            or (holder.alone and action.verb in OF_DESCRIPTOR)
            or (action.verb == "antispoof" and holder.uid != 0)
        ):
            interface.expect_no_holder()
        if action.verb in OF_HOST:
            interface.expect_tap()

    def _check_queue(self, host: HostEnd, actions: tuple[Action, ...]) -> None:
        """Check the kernel memory that the tap's queue can hold, which the memory accounts do not include."""
        frames, mtu = host.queue, host.mtu
        for action in actions:
            match action:
                case Action("queue", (int(number),)):
                    frames = number
                case Action("mtu", (int(number),)):
                    mtu = number
        size, most = frames * (mtu + _SKB), self._limits.user_memory
        if (frames, mtu) != (host.queue, host.mtu) and size > most:
            raise VirtError(
                errno.ENOBUFS,
                f"{frames} frames of {mtu} bytes can take {size} bytes of kernel memory: "
                f"the limit for one user is {most} (mount option max_user_memory)",
            )

    def _check_history(self, actions: tuple[Action, ...]) -> None:
        """Check the size of the history against the most that one user can make the server hold of it."""
        most = int(self._limits.user_memory * SHARES[Kind.HISTORY.level])
        for action in actions:
            match action:
                case Action("history", (int(size),)) if size > most:
                    raise VirtError(
                        errno.ENOBUFS,
                        f"history: one user can keep at most {most} bytes, not {size}: "
                        f"a third of {self._limits.user_memory} (mount option max_user_memory)",
                    )

    def _check_limits(self, action: Action) -> None:
        limits = self._limits
        match action:
            case Action("queue", (int(frames),)):
                _check_most("queue", frames, limits.queue, "max_queue")
            case Action("backlog", (int(frames),)):
                _check_most("backlog", frames, limits.backlog, "max_backlog")
            case Action("impair", (tuple(impairments),)):
                for _, impairment in impairments:
                    _check_most("limit", impairment.limit, max(limits.queue, LIMIT_DEFAULT), "max_queue")
            case Action("history", (int(size),)):
                _check_most("history", size, limits.history, "max_history", format_size)


def _check_most(what: str, value: int, most: int, option: str, text: Callable[[int], str] = str) -> None:
    if value > most:
        limit = f"this mount allows at most {text(most)} (mount option {option}), not {text(value)}"
        raise VirtError(errno.ERANGE, f"{what}: {limit}")
