"""Converts chmod(2) and chown(2) on the files of an interface into the verbs `mode`, `owner` and `group`."""

import errno

from virtfs.core.errors import VirtError
from virtfs.core.grammar import Action
from virtfs.core.ids import Gid, Uid, User
from virtfs.daemon.commands import Commands
from virtfs.daemon.errors_by_user import ErrorsByUser
from virtfs.files.frame import Frame
from virtfs.files.node import Node, virt_of


class Rights:
    """Applies chmod(2) and chown(2) for the slow plane (fuse.names.Keeper)."""

    def __init__(self, commands: Commands, errors: ErrorsByUser) -> None:
        self._commands = commands
        self._errors = errors

    async def set_mode(self, node: Node, mode: int, user: User) -> None:
        """Apply a chmod(2) on the file frame: set the mode of the interface.

        VirtError: EPERM, the file is not frame; EINVAL, the mode has bits beyond 0777.
        """
        if not isinstance(node, Frame):
            refusal = VirtError(
                errno.EPERM, 'chmod: only the mode of "frame" can be changed; it applies to all files of the interface'
            )
            raise self._errors.remember(refusal, user)
        if mode > 0o777:
            refusal = VirtError(errno.EINVAL, f"chmod: mode {mode:o} has bits beyond 0777")
            raise self._errors.remember(refusal, user)
        await self._change(node, (Action("mode", (mode,)),), user)

    async def set_owner(self, node: Node, owner: Uid | None, group: Gid | None, user: User) -> None:
        """Apply a chown(2) on any file of an interface: set the owner and the group of the interface.

        owner, group: the new ids. None leaves the owner or the group unchanged.
        VirtError: EPERM, the user is not root, or the file belongs to no interface; errors from the verbs.
        """
        actions = []
        if owner is not None:
            actions.append(Action("owner", (str(owner),)))
        if group is not None:
            actions.append(Action("group", (str(group),)))
        await self._change(node, tuple(actions), user)

    def deny(self, operation: str, user: User) -> None:
        """Set the last_error of a user who tried to make, rename or remove a name. operation: the system call."""
        sentence = f"{operation}: files cannot be made, renamed or removed: write create or destroy to ctl"
        self._errors.report(VirtError(errno.EPERM, sentence), user)

    async def _change(self, node: Node, actions: tuple[Action, ...], user: User) -> None:
        if (virt := virt_of(node.owner)) is None:
            refusal = VirtError(errno.EPERM, "this file belongs to no interface: only root can own it")
            raise self._errors.remember(refusal, user)
        await self._commands.change(virt, actions, user)
