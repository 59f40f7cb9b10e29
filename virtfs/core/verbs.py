"""The tables of ctl: the commands a line can be, and the verbs that can follow in it.

A new verb is a new entry here and its effect in the daemon; grammar, help and the attribute files follow from
the table.
"""

from dataclasses import dataclass
from typing import Final, Literal

from virtfs.core import arguments as arg
from virtfs.core.arguments import Argument

Kind = Literal["create", "ensure", "destroy", "change", "cable", "uncable", "help"]
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
    of: Of = "virt"


FORMS: Final = (
    Form("create", "optional", True, "create [N | virtN] [VERB ...]", "make it; without N, the lowest free one"),
    Form("ensure", "required", True, "ensure N | virtN [VERB ...]", "create it if need be, then make it so"),
    Form("destroy", "required", False, "destroy N | virtN", "remove it; a tap that was there before stays"),
    Form("change", "required", True, "virtN VERB ...", "change it"),
    Form("create", "required", True, "create bridgeN [VERB ...]", "make the bridge; one of the host is used", BRIDGE),
    Form("ensure", "required", True, "ensure bridgeN [VERB ...]", "create it if need be, then make it so", BRIDGE),
    Form("destroy", "required", False, "destroy bridgeN", "remove it; one of the host is left as found", BRIDGE),
    Form("change", "required", True, "bridgeN VERB ...", "change it", BRIDGE),
    Form("cable", "required", False, "cable A B [IMPAIRMENT ...]", "what virtA gets goes out of virtB, and back"),
    Form("uncable", "required", False, "uncable A B", "take that cable out"),
    Form("help", "none", False, "help", "no effect; the file help holds this text"),
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    file: the attribute file it mirrors, relative to the interface's directory. A verb with one argument is
    what writing that argument to the file means; one without arguments is what writing `value` means.
    root_only: refused to an owner who is not root. ends_line: cannot be undone, so nothing may follow it.
    ends_change: likewise, but only in a line that changes an interface; in one that makes it, removing the interface
    undoes the verb.
    rest_of_line: its one argument is the rest of the line, "#" and blanks included, and may be empty.
    option: a word that may follow the arguments, and is then the last of them.
    """

    name: str
    arguments: tuple[Argument, ...]
    meaning: str
    of: Of = VIRT
    file: str | None = None
    value: str | None = None
    root_only: bool = False
    ends_line: bool = False
    ends_change: bool = False
    rest_of_line: bool = False
    option: str | None = None

    @property
    def usage(self) -> str:
        """Name and arguments as help prints them: "mtu N", "add IF [adopt]"."""
        option = (f"[{self.option}]",) if self.option else ()
        return " ".join((self.name, *(argument.name for argument in self.arguments), *option))


def _switch(name: str, off: str, meaning: str, off_meaning: str, root_only: bool = False) -> tuple[Verb, Verb]:
    """A verb, its opposite, and the file named after the first that holds 1 or 0."""
    return (
        Verb(name, (), meaning, file=name, value="1", root_only=root_only),
        Verb(off, (), off_meaning, file=name, value="0", root_only=root_only),
    )


_VIRT_VERBS: Final[tuple[Verb, ...]] = (
    *_switch("up", "down", "set the tap up: frames pass", "set it down: frames are dropped, readers fail"),
    Verb("mtu", (arg.MTU,), "largest payload of a frame in bytes, 68 to 65521", file="mtu"),
    Verb("link", (arg.MAC,), "the MAC address of virt, the far end", file="address"),
    Verb("taplink", (arg.MAC,), "the MAC address of tap, the host's end", file="tap/address", root_only=True),
    Verb("inet", (arg.INET,), "give the tap an IPv4 address", root_only=True),
    Verb("inet6", (arg.INET6,), "give the tap an IPv6 address", root_only=True),
    Verb("-inet", (arg.INET_KNOWN,), "take an IPv4 address from the tap", root_only=True),
    Verb("-inet6", (arg.INET6_KNOWN,), "take an IPv6 address from the tap", root_only=True),
    Verb("bridge", (arg.BRIDGE,), "put the tap into a bridge of the host", file="tap/bridge", root_only=True),
    Verb("-bridge", (), "take it out of its bridge", file="tap/bridge", value="", root_only=True),
    Verb("owner", (arg.USER,), "the user, by name or number, who may use the interface", root_only=True),
    Verb("group", (arg.GROUP,), "the group, by name or number, that may use it (mode 0660)", root_only=True),
    Verb("mode", (arg.MODE,), "permission bits of the streams, 0 to 0777; ctl and values follow"),
    Verb("queue", (arg.QUEUE,), "frames that may wait for a reader, at least 1", file="queue"),
    Verb("backlog", (arg.BACKLOG,), "frames to keep while nobody reads, 0 for none", file="backlog"),
    *_switch(
        "strict",
        "-strict",
        "a frame that cannot be sent fails its write",
        "such a frame is dropped and counted",
    ),
    *_switch("promisc", "-promisc", "the tap takes frames for any address", "it takes its own, as new"),
    *_switch(
        "antispoof",
        "-antispoof",
        "a frame from another address than virt's is dropped",
        "any source address passes, as new",
        root_only=True,
    ),
    *_switch("persist", "-persist", "the tap outlives the mount", "it goes with the mount, as new", root_only=True),
    *_switch("upopen", "-upopen", "frame's first open sets it up, the last close down", "opening changes nothing"),
    Verb("carrier", (arg.CARRIER,), "plugged in always, or while frame is open", file="carrier"),
    Verb(
        "netns",
        (arg.NETNS,),
        "move the tap to a network namespace, by name or process",
        file="tap/netns",
        root_only=True,
        ends_change=True,
    ),
    Verb("exclusive", (arg.EXCLUSIVE,), "what only one at a time may open frame for", file="exclusive"),
    Verb("impair", (arg.IMPAIRMENTS,), "hold up, lose, change frames, in tc-netem(8)'s words", file="impair"),
    Verb("-impair", (), "do not, in both directions, as new", file="impair", value=""),
    Verb("filter", (arg.FILTER,), "let only such frames in, in tcpdump's language", file="filter", rest_of_line=True),
    Verb("-filter", (), "let all in, as new", file="filter", value=""),
    Verb("pace", (arg.FACTOR,), "inject's speed, times that of the recording; 0 as fast as it goes", file="pace"),
    Verb("history", (arg.SIZE,), "bytes of the last frames to keep for the file history", file="history_size"),
    Verb("-history", (), "keep none, as new", file="history_size", value="0"),
    Verb(
        "description",
        (arg.DESCRIPTION,),
        "a note of up to 256 characters, the rest of the line",
        file="description",
        rest_of_line=True,
    ),
)

# brconfig(8)'s, and ifconfig(8)'s that it leaves to that. A bridge is root's, so none needs root_only.
_BRIDGE_VERBS: Final[tuple[Verb, ...]] = (
    Verb("up", (), "set the bridge up: it forwards", of=BRIDGE),
    Verb("down", (), "set it down: nothing passes", of=BRIDGE),
    Verb("add", (arg.IFACE,), "make it a member; adopt: its addresses and routes move", of=BRIDGE, option="adopt"),
    Verb("delete", (arg.IFACE,), "no member any more; what was adopted moves back", of=BRIDGE),
    Verb("maxaddr", (arg.MAXADDR,), "addresses to learn at most, 0 for no limit; new 100", of=BRIDGE),
    Verb("timeout", (arg.TIMEOUT,), "until an address is forgotten, 0 for never; new 1200", of=BRIDGE),
    Verb("static", (arg.IFACE, arg.MAC), "an address that is neither forgotten nor moved", of=BRIDGE),
    Verb("deladdr", (arg.MAC,), "forget an address", of=BRIDGE, ends_line=True),
    Verb("flush", (), "forget the addresses that were learned", of=BRIDGE, ends_line=True),
    Verb("flushall", (), "forget the static ones too", of=BRIDGE, ends_line=True),
    Verb("discover", (arg.IFACE,), "send it frames for unknown addresses (as new)", of=BRIDGE),
    Verb("-discover", (arg.IFACE,), "do not", of=BRIDGE),
    Verb("learn", (arg.IFACE,), "learn addresses from it (as new)", of=BRIDGE),
    Verb("-learn", (arg.IFACE,), "do not", of=BRIDGE),
    Verb("protect", (arg.IFACE,), "no frames between it and others so marked", of=BRIDGE),
    Verb("-protect", (arg.IFACE,), "no such limit (as new)", of=BRIDGE),
    Verb("stp", (arg.IFACE,), "spanning tree; on Linux of all members at once", of=BRIDGE),
    Verb("-stp", (arg.IFACE,), "none, of all members at once (as new)", of=BRIDGE),
    Verb("maxage", (arg.MAXAGE,), "spanning tree: how long what it hears is valid, 6 to 40", of=BRIDGE),
    Verb("fwddelay", (arg.FWDDELAY,), "spanning tree: the wait before it forwards, 2 to 30", of=BRIDGE),
    Verb("hellotime", (arg.HELLOTIME,), "spanning tree: between its messages, 1 to 10", of=BRIDGE),
    Verb("priority", (arg.PRIORITY,), "spanning tree: 0 is the first to be root; new 32768", of=BRIDGE),
    Verb("ifpriority", (arg.IFACE, arg.IFPRIORITY), "of a member, 0 to 255 in steps of 4; new 128", of=BRIDGE),
    Verb("ifpathcost", (arg.IFACE, arg.IFPATHCOST), "of a member, 1 to 65535", of=BRIDGE),
    Verb("groupfwd", (arg.GROUPFWD,), "forward frames to link-local groups; bit N is 01:80:c2:00:00:0N", of=BRIDGE),
    Verb("ifgroupfwd", (arg.IFACE, arg.IFGROUPFWD), "the same for what comes from one member", of=BRIDGE),
    Verb("mtu", (arg.MTU,), "largest payload of a frame in bytes", of=BRIDGE),
    Verb("inet", (arg.INET,), "give the bridge an IPv4 address", of=BRIDGE),
    Verb("inet6", (arg.INET6,), "give the bridge an IPv6 address", of=BRIDGE),
    Verb("-inet", (arg.INET_KNOWN,), "take an IPv4 address from it", of=BRIDGE),
    Verb("-inet6", (arg.INET6_KNOWN,), "take an IPv6 address from it", of=BRIDGE),
)
VERBS: Final[tuple[Verb, ...]] = _VIRT_VERBS + _BRIDGE_VERBS

_BY_NAME: Final = {(verb.of, verb.name): verb for verb in VERBS}


def find(of: Of, name: str) -> Verb | None:
    """The verb of this name for a virt or for a bridge."""
    return _BY_NAME.get((of, name))


def of_file(of: Of, file: str) -> tuple[Verb, ...]:
    """The verbs that mirror an attribute file; none if it has no verb."""
    return tuple(verb for verb in VERBS if verb.of == of and verb.file == file)
