"""The events that the file `events` reports, one line each: `<unix time> <event> <name> [key=value …]`."""

from typing import Final, Literal, NamedTuple

Event = Literal[
    "create",
    "destroy",
    "lost",
    "up",
    "down",
    "mtu",
    "carrier",
    "bridge",
    "join",
    "leave",
    "open",
    "close",
    "cable",
    "uncable",
    "connect",
    "disconnect",
    "drop",
    "mark",
    "warning",
    "unsaved",
    "saved",
    "retry",
]


class Meaning(NamedTuple):
    """What an event means. keys: the keys of the key=value pairs that follow the name, in this order."""

    text: str
    keys: tuple[str, ...] = ()


EVENTS: Final[dict[Event, Meaning]] = {
    "create": Meaning("an interface or a bridge was created"),
    "destroy": Meaning("an interface or a bridge was destroyed"),
    "lost": Meaning("the tap or the bridge vanished: another program deleted it, or renamed the bridge"),
    "up": Meaning("the host's end was set up"),
    "down": Meaning("the host's end was set down"),
    "mtu": Meaning("the MTU changed", ("mtu",)),
    "carrier": Meaning("the host's end gained or lost its carrier", ("carrier",)),
    "bridge": Meaning("the host's end joined or left a bridge", ("bridge",)),
    "join": Meaning("an interface joined a bridge", ("member",)),
    "leave": Meaning("a member left a bridge, which may keep its addresses", ("member", "returned")),
    "open": Meaning("a device file was opened", ("file", "uid", "pid")),
    "close": Meaning("the last descriptor of an open was closed", ("file", "uid", "pid")),
    "cable": Meaning("a cable was connected to the interface", ("peer",)),
    "uncable": Meaning("the cable was taken away", ("peer",)),
    "connect": Meaning("the socket of a cable was connected", ("socket",)),
    "disconnect": Meaning("the connection of a cable's socket ended", ("socket", "errno")),
    "drop": Meaning("frames from the host were dropped, and counted in rx_dropped", ("frames",)),
    "mark": Meaning("a user has marked this moment", ("text",)),
    "warning": Meaning("a tap or bridge existed before, or a bridge has lost addresses or stays", ("text",)),
    "unsaved": Meaning("the state file could not be written", ("errno",)),
    "saved": Meaning("the state file is complete again"),
    "retry": Meaning("the failed lines of the state file were run again", ("done", "failed")),
}
