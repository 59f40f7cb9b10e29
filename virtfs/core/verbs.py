"""The tables of ctl: the commands a line can be, and the verbs that can follow in it.

A new verb is a new entry here and its effect in the daemon; grammar, help and the attribute files follow from
the table.
"""

from dataclasses import dataclass
from typing import Final, Literal

from virtfs.core import arguments as arg
from virtfs.core.arguments import Argument

Kind = Literal["create", "ensure", "destroy", "change", "help"]
Of = Literal["virt", "bridge"]
VIRT: Final = "virt"
BRIDGE: Final = "bridge"


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of command: whether an interface and verbs follow its first word, and what help says."""

    kind: Kind
    target: Literal["none", "optional", "required"]
    verbs: bool
    usage: str
    meaning: str


FORMS: Final = (
    Form("create", "optional", True, "create [N | virtN] [VERB ...]", "make it; without N, the lowest free one"),
    Form("ensure", "required", True, "ensure N | virtN [VERB ...]", "create it if need be, then make it so"),
    Form("destroy", "required", False, "destroy N | virtN", "remove it; a tap that was there before stays"),
    Form("change", "required", True, "virtN VERB ...", "change it"),
    Form("help", "none", False, "help", "no effect; the file help holds this text"),
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    file: the attribute file it mirrors, relative to the interface's directory. A verb with one argument is
    what writing that argument to the file means; one without arguments is what writing `value` means.
    root_only: refused to an owner who is not root. ends_line: cannot be undone, so nothing may follow it.
    rest_of_line: its one argument is the rest of the line, "#" and blanks included, and may be empty.
    """

    name: str
    arguments: tuple[Argument, ...]
    meaning: str
    of: Of = VIRT
    file: str | None = None
    value: str | None = None
    root_only: bool = False
    ends_line: bool = False
    rest_of_line: bool = False

    @property
    def usage(self) -> str:
        """Name and arguments as help prints them: "mtu N"."""
        return " ".join((self.name, *(argument.name for argument in self.arguments)))


def _switch(name: str, off: str, meaning: str, off_meaning: str) -> tuple[Verb, Verb]:
    """A verb, its opposite, and the file named after the first that holds 1 or 0."""
    return Verb(name, (), meaning, file=name, value="1"), Verb(off, (), off_meaning, file=name, value="0")


VERBS: Final[tuple[Verb, ...]] = (
    *_switch("up", "down", "set the tap up: frames pass", "set it down: frames are dropped, readers fail"),
    Verb("mtu", (arg.MTU,), "largest payload of a frame in bytes, 68 to 65521", file="mtu"),
    Verb("link", (arg.MAC,), "the MAC address of virt, the far end", file="address"),
    Verb("taplink", (arg.MAC,), "the MAC address of tap, the host's end", file="tap/address", root_only=True),
    Verb("inet", (arg.INET,), "give the tap an IPv4 address", root_only=True),
    Verb("inet6", (arg.INET6,), "give the tap an IPv6 address", root_only=True),
    Verb("-inet", (arg.INET_KNOWN,), "take an IPv4 address from the tap", root_only=True),
    Verb("-inet6", (arg.INET6_KNOWN,), "take an IPv6 address from the tap", root_only=True),
    Verb("owner", (arg.USER,), "the user, by name or number, who may use the interface", root_only=True),
    Verb("group", (arg.GROUP,), "the group, by name or number, that may use the interface", root_only=True),
    Verb("mode", (arg.MODE,), "permission bits of the streams, 0 to 0777; ctl and values follow"),
    Verb("queue", (arg.QUEUE,), "frames that may wait for a reader, at least 1", file="queue"),
    Verb("backlog", (arg.BACKLOG,), "frames to keep while nobody reads, 0 for none", file="backlog"),
    *_switch(
        "strict",
        "-strict",
        "a frame that cannot be sent fails its write",
        "such a frame is dropped and counted",
    ),
    Verb("exclusive", (arg.EXCLUSIVE,), "what only one at a time may open frame for", file="exclusive"),
    Verb(
        "description",
        (arg.DESCRIPTION,),
        "a note of up to 256 characters, the rest of the line; empty clears it",
        file="description",
        rest_of_line=True,
    ),
)

_BY_NAME: Final = {(verb.of, verb.name): verb for verb in VERBS}


def find(of: Of, name: str) -> Verb | None:
    """The verb of this name for a virt or for a bridge."""
    return _BY_NAME.get((of, name))


def of_file(of: Of, file: str) -> tuple[Verb, ...]:
    """The verbs that mirror an attribute file; none if it has no verb."""
    return tuple(verb for verb in VERBS if verb.of == of and verb.file == file)
