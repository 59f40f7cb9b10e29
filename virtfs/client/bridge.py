"""Bridge: a bridge of a mount, as an object whose attributes are the files below bridge/bridgeN."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from virtfs.client import lines as words_of
from virtfs.client.folder import Folder
from virtfs.client.lines import BridgeVerbs, Interface
from virtfs.client.values import Value, lines
from virtfs.core.verbs import BRIDGE


@dataclass(frozen=True, slots=True)
class Known:
    """A learned or static address of a bridge: a line of the file `addresses`.

    member: the name of the interface that leads to the address. age: seconds since the last frame from the address.

    >>> b.set(add=v, static="virt3 02:00:00:00:00:07")
    >>> [known.member for known in b.addresses if known.static]
    ['tap3']
    """

    address: str
    member: str
    age: int
    static: bool


def _addresses(text: str) -> list[Known]:
    rows = (line.split() for line in text.splitlines())
    return [Known(address, member, int(age), "STATIC" in flags) for address, member, age, flags in rows]


class Bridge(Folder):
    """A bridge of a mount. Only root may change it.

    OSError: ENOENT, there is no such bridge; other errors have the text of last_error.

    >>> b.add(v)
    >>> b.members
    ['tap3']
    """

    __slots__ = ()

    def __init__(self, top: "str | os.PathLike[str]", name: str) -> None:
        """Make an object for a bridge, which need not exist yet. top: the mount point. name: such as "bridge0"."""
        super().__init__(Path(top) / "bridge" / name, Path(top))

    @property
    def name(self) -> str:
        """The bridge's name.

        >>> b.name
        'bridge0'
        """
        return self.path.name

    def __str__(self) -> str:
        return self.name

    members = Value("members", lines, "The names of its members.\n\n>>> b.members\n[]")
    addresses = Value("addresses", _addresses, "The learned and static addresses.\n\n>>> b.addresses\n[]")
    status = Value(
        "status", str, "The bridge in brconfig's layout.\n\n>>> b.status.splitlines()[0]\n'bridge0: flags=0<>'"
    )
    script = Value("ctl", str, "The verbs that make a new bridge like this one.\n\n>>> b.script\n''")

    def add(self, interface: Interface, adopt: bool = False) -> None:
        """Make an interface a member.

        interface: a Virt, or the name of an interface of the host. adopt: whether the interface's addresses and routes
        move to the bridge. OSError: EBUSY, it is in another bridge; EEXIST, it is in this one.

        >>> net.bridge("bridge0").add(v)
        """
        self.ctl(words_of.words({"add": interface}, BRIDGE) + (" adopt" if adopt else ""))

    def delete(self, interface: Interface) -> None:
        """Remove a member. Addresses and routes that `adopt` moved go back to it. OSError: ENOENT, it is not a member.

        >>> b.add(v)
        >>> b.delete(v)
        """
        self.set(delete=interface)

    def set(self, **verbs: Unpack[BridgeVerbs]) -> None:
        """Apply verbs in one line, as Virt.set() does. For example, no_learn="virt3" is `-learn virt3`.

        >>> b.set(up=True, add=v, no_learn=v, timeout=600)
        """
        if line := words_of.words(verbs, BRIDGE):
            self.ctl(line)

    def ctl(self, line: str) -> None:
        """Write verbs to the ctl of the bridge.

        >>> b.ctl("up maxage 20")
        """
        self.write("ctl", line)

    def destroy(self) -> None:
        """Remove the bridge, or restore it if it existed before virtfs used it.

        >>> b.destroy()
        """
        Folder(self.top, self.top).write("ctl", f"destroy {self.name}")
