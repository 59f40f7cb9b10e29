"""The tables of ctl: commands, and the verbs that follow them in a line.

To add a verb, add an entry here and its effect in the daemon. The grammar, the help text and the attribute files are
derived from the tables.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from virtfs.core import arguments as arg
from virtfs.core.arguments import Argument
from virtfs.core.impairment import BOTH

Kind = Literal["create", "ensure", "destroy", "change", "cable", "uncable", "mark", "check", "retry"]
Noun = Literal["virt", "bridge"]
VIRT: Final = "virt"
BRIDGE: Final = "bridge"


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a command.

    target: whether the name of an interface or bridge follows the first word. verbs: whether verbs may follow.
    usage, meaning: the two columns of the help text. noun: the kind of object that the command acts on.
    """

    kind: Kind
    target: Literal["none", "optional", "required"]
    verbs: bool
    usage: str
    meaning: str
    noun: Noun = "virt"


FORMS: Final = (
    Form(
        "create",
        "optional",
        True,
        "create [N | virtN] [VERB ...]",
        "create the interface; without N, the lowest free one",
    ),
    Form("ensure", "required", True, "ensure N | virtN [VERB ...]", "create it if it is missing, then apply the verbs"),
    Form(
        "destroy",
        "required",
        False,
        "destroy N | virtN | all",
        "remove it, or everything; a tap that existed before stays",
    ),
    Form("change", "required", True, "virtN VERB ...", "change the interface"),
    Form(
        "create",
        "required",
        True,
        "create bridgeN [VERB ...]",
        "create the bridge, or attach to an existing one",
        BRIDGE,
    ),
    Form(
        "ensure",
        "required",
        True,
        "ensure bridgeN [VERB ...]",
        "create or attach to the bridge if needed, then apply the verbs",
        BRIDGE,
    ),
    Form("destroy", "required", False, "destroy bridgeN", "remove the bridge; restore one that existed before", BRIDGE),
    Form("change", "required", True, "bridgeN VERB ...", "change the bridge", BRIDGE),
    Form(
        "cable",
        "required",
        False,
        "cable A B|SOCKET [IMPAIRMENT ...]",
        "carry the host's frames from tapA to tapB or a socket, and back",
    ),
    Form("uncable", "required", False, "uncable A [B|SOCKET]", "remove that cable; A has only one"),
    Form("mark", "none", False, "mark TEXT", "put TEXT into captures, histories and events"),
    Form("check", "none", False, "check LINE", "answer as LINE would, but change nothing"),
    Form("retry", "none", False, "retry", "run the lines again that were not replayed"),
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    file: path of the attribute file that mirrors the verb, relative to the interface's directory. Writing an argument
    to this file runs the verb with that argument.
    value: for a verb without arguments, the text that runs the verb when written to `file`.
    root_only: only root may use the verb, even if the interface has another owner.
    ends_line: the verb cannot be undone, so no verb may follow it in the line.
    ends_change: the same as ends_line, but only in a line that changes an interface. In a line that creates an
    interface, removing the interface undoes the verb.
    rest_of_line: the only argument is the rest of the line, including "#" and blanks. It may be empty.
    options: words of which one may follow the arguments. If the line contains one, it is the last value of the Action.
    """

    name: str
    arguments: tuple[Argument, ...]
    meaning: str
    noun: Noun = VIRT
    file: str | None = None
    value: str | None = None
    root_only: bool = False
    ends_line: bool = False
    ends_change: bool = False
    rest_of_line: bool = False
    options: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The name and arguments as help prints them: "mtu N", "add IF [adopt]"."""
        option = (f"[{'|'.join(self.options)}]",) if self.options else ()
        return " ".join((self.name, *(argument.name for argument in self.arguments), *option))


def _switch(name: str, off: str, meaning: str, off_meaning: str, root_only: bool = False) -> tuple[Verb, Verb]:
    """Return a verb and its opposite.

    One file mirrors both verbs. The file has the name of the first verb. It holds 1 while this verb is in effect, and 0
    while its opposite is.
    """
    return (
        Verb(name, (), meaning, file=name, value="1", root_only=root_only),
        Verb(off, (), off_meaning, file=name, value="0", root_only=root_only),
    )


_VIRT_VERBS: Final[tuple[Verb, ...]] = (
    *_switch("up", "down", "set the tap up: frames pass", "set the tap down: frames are dropped and reads fail"),
    Verb("mtu", (arg.MTU,), "largest payload of a frame in bytes, 68 to 65521", file="mtu"),
    Verb("link", (arg.MAC,), "the MAC address of virt, the far end", file="address"),
    Verb("taplink", (arg.MAC,), "the MAC address of tap, the host's end", file="tap/address", root_only=True),
    Verb("inet", (arg.INET,), "give the tap an IPv4 address", root_only=True),
    Verb("inet6", (arg.INET6,), "give the tap an IPv6 address", root_only=True),
    Verb("-inet", (arg.INET_KNOWN,), "remove an IPv4 address from the tap", root_only=True),
    Verb("-inet6", (arg.INET6_KNOWN,), "remove an IPv6 address from the tap", root_only=True),
    Verb("bridge", (arg.BRIDGE,), "put the tap into one of the host's bridges", file="tap/bridge", root_only=True),
    Verb("-bridge", (), "take the tap out of its bridge", file="tap/bridge", value="", root_only=True),
    Verb("owner", (arg.USER,), "the user who may use the interface, by name or number", root_only=True),
    Verb("group", (arg.GROUP,), "the group that may use it, by name or number (mode 0660)", root_only=True),
    Verb("mode", (arg.MODE,), "permission bits of the device files, in octal, 0 to 0777"),
    Verb("queue", (arg.QUEUE,), "maximum number of frames waiting for a reader, at least 1", file="queue"),
    Verb("backlog", (arg.BACKLOG,), "frames to keep while nobody reads, 0 for none", file="backlog"),
    *_switch(
        "strict",
        "-strict",
        "fail the write of a frame that cannot be sent",
        "drop and count such a frame instead",
    ),
    *_switch(
        "promisc",
        "-promisc",
        "the tap accepts frames for any address",
        "it accepts frames for its own address only (default)",
    ),
    *_switch(
        "antispoof",
        "-antispoof",
        "drop written frames whose source is not virt's address",
        "pass any source address (default)",
        root_only=True,
    ),
    *_switch(
        "persist",
        "-persist",
        "the tap outlives the mount",
        "the tap is removed with the mount (default)",
        root_only=True,
    ),
    *_switch(
        "upopen",
        "-upopen",
        "set the tap up at the first open of frame, down at the last close",
        "opening and closing frame changes nothing (default)",
    ),
    Verb(
        "carrier",
        (arg.CARRIER,),
        "the carrier: always (default), while frame is open, or off",
        file="carrier",
    ),
    Verb(
        "netns",
        (arg.NETNS,),
        "move the tap to a network namespace, by name or process",
        file="tap/netns",
        root_only=True,
        ends_change=True,
    ),
    Verb("exclusive", (arg.EXCLUSIVE,), "directions in which frame may be open only once", file="exclusive"),
    Verb("impair", (arg.IMPAIRMENTS,), "delay, lose or change frames, in the words of tc-netem(8)", file="impair"),
    Verb(
        "-impair",
        (),
        "no impairment in this direction, or in either (default)",
        file="impair",
        value="",
        options=BOTH,
    ),
    Verb("filter", (arg.FILTER,), "pass only frames that match a tcpdump expression", file="filter", rest_of_line=True),
    Verb("-filter", (), "pass all frames (default)", file="filter", value=""),
    Verb("pace", (arg.FACTOR,), "speed of inject relative to the recording; 0 for the maximum", file="pace"),
    Verb("history", (arg.SIZE,), "bytes of recent frames to keep for the file history", file="history_size"),
    Verb("-history", (), "keep no recent frames (default)", file="history_size", value="0"),
    Verb(
        "description",
        (arg.DESCRIPTION,),
        "a note of up to 256 characters, the rest of the line",
        file="description",
        rest_of_line=True,
    ),
    Verb("mark", (arg.MARK,), "put a text into open captures, history and events", rest_of_line=True),
)

# The verbs of brconfig(8), and those that NetBSD has in ifconfig(8) instead. Only root may use bridges, so no verb
# needs root_only.
_BRIDGE_VERBS: Final[tuple[Verb, ...]] = (
    Verb("up", (), "set the bridge up: it forwards frames", noun=BRIDGE),
    Verb("down", (), "set the bridge down: no frame passes", noun=BRIDGE),
    Verb(
        "add",
        (arg.IFACE,),
        "add a member; adopt moves its addresses and routes to the bridge",
        noun=BRIDGE,
        options=("adopt",),
    ),
    Verb("delete", (arg.IFACE,), "remove a member; addresses and routes that it brought move back", noun=BRIDGE),
    Verb("maxaddr", (arg.MAXADDR,), "maximum number of learned addresses, 0 for no limit (default 100)", noun=BRIDGE),
    Verb("timeout", (arg.TIMEOUT,), "time until a learned address expires, 0 for never (default 1200)", noun=BRIDGE),
    Verb("static", (arg.IFACE, arg.MAC), "add an address that never expires or moves", noun=BRIDGE),
    Verb("deladdr", (arg.MAC,), "remove an address from the table", noun=BRIDGE, ends_line=True),
    Verb("flush", (), "remove the learned addresses", noun=BRIDGE, ends_line=True),
    Verb("flushall", (), "remove the learned and the static addresses", noun=BRIDGE, ends_line=True),
    Verb("discover", (arg.IFACE,), "send frames for unknown addresses to the member (default)", noun=BRIDGE),
    Verb("-discover", (arg.IFACE,), "do not send such frames to the member", noun=BRIDGE),
    Verb("learn", (arg.IFACE,), "learn addresses from the member's frames (default)", noun=BRIDGE),
    Verb("-learn", (arg.IFACE,), "do not learn addresses from the member's frames", noun=BRIDGE),
    Verb("protect", (arg.IFACE,), "pass no frames between this and other protected members", noun=BRIDGE),
    Verb("-protect", (arg.IFACE,), "pass frames to and from all other members (default)", noun=BRIDGE),
    Verb("stp", (arg.IFACE,), "run the spanning tree protocol; on Linux, for all members", noun=BRIDGE),
    Verb("-stp", (arg.IFACE,), "run no spanning tree protocol, for all members (default)", noun=BRIDGE),
    Verb("maxage", (arg.MAXAGE,), "spanning tree: lifetime of received information, 6 to 40", noun=BRIDGE),
    Verb("fwddelay", (arg.FWDDELAY,), "spanning tree: delay before a port forwards frames, 2 to 30", noun=BRIDGE),
    Verb("hellotime", (arg.HELLOTIME,), "spanning tree: interval of hello messages, 1 to 10", noun=BRIDGE),
    Verb("priority", (arg.PRIORITY,), "spanning tree: priority, 0 the highest (default 32768)", noun=BRIDGE),
    Verb(
        "ifpriority",
        (arg.IFACE, arg.IFPRIORITY),
        "port priority of a member, 0 to 255 in steps of 4 (default 128)",
        noun=BRIDGE,
    ),
    Verb("ifpathcost", (arg.IFACE, arg.IFPATHCOST), "path cost of a member, 1 to 65535", noun=BRIDGE),
    Verb("groupfwd", (arg.GROUPFWD,), "forward frames to link-local groups; bit N is 01:80:c2:00:00:0N", noun=BRIDGE),
    Verb("ifgroupfwd", (arg.IFACE, arg.IFGROUPFWD), "the same for frames from one member", noun=BRIDGE),
    Verb("mtu", (arg.MTU,), "largest payload of a frame in bytes", noun=BRIDGE),
    Verb("inet", (arg.INET,), "give the bridge an IPv4 address", noun=BRIDGE),
    Verb("inet6", (arg.INET6,), "give the bridge an IPv6 address", noun=BRIDGE),
    Verb("-inet", (arg.INET_KNOWN,), "remove an IPv4 address from the bridge", noun=BRIDGE),
    Verb("-inet6", (arg.INET6_KNOWN,), "remove an IPv6 address from the bridge", noun=BRIDGE),
)
VERBS: Final[tuple[Verb, ...]] = _VIRT_VERBS + _BRIDGE_VERBS

_BY_NAME: Final = {(verb.noun, verb.name): verb for verb in VERBS}


def find(noun: Noun, name: str) -> Verb | None:
    """Return the verb of this name for a virt or for a bridge; None if there is none."""
    return _BY_NAME.get((noun, name))


def known(noun: Noun, name: str) -> Verb:
    """Return the verb of this name as find() does. ValueError: there is none."""
    verb = find(noun, name)
    if verb is None:
        raise ValueError(f"no verb {name}")
    return verb


def of_file_named(name: str) -> tuple[Verb, ...]:
    """Return the verbs with an argument that the attribute files of this name mirror, in whatever directory."""
    return tuple(verb for verb in VERBS if verb.arguments and (verb.file or "").rpartition("/")[2] == name)


@cache
def of_file(noun: Noun, file: str) -> tuple[Verb, ...]:
    """Return the verbs that an attribute file mirrors; () if no verb has that file."""
    return tuple(verb for verb in VERBS if verb.noun == noun and verb.file == file)
