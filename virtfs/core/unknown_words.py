"""Guesses what a wrong word in a line of ctl meant, for the error messages of core.grammar."""

import re
from collections.abc import Iterable
from ipaddress import ip_interface
from typing import Final

from virtfs.core import verbs
from virtfs.core.impairment_text import EXAMPLE, WORDS
from virtfs.core.line_words import Words
from virtfs.core.nearest import did_you_mean, nearest
from virtfs.core.quantities import hint_of_unit
from virtfs.core.quoting import quoted
from virtfs.core.socketname import FORMS as SOCKETS
from virtfs.core.verbs import BRIDGE, FORMS, VIRT, Noun

HELP: Final = '"virtfs ctl help"'
NAMES: Final = "an interface is named N or virtN, a bridge bridgeN"
# What names an interface or a bridge of the mount, even if the name is not valid.
LIKE_A_UNIT: Final = re.compile(r"[-+]?[0-9]|virt|tap(?:[0-9]|$)")
LIKE_A_BRIDGE: Final = re.compile(r"bridge[-+]?[0-9]")

_COMMANDS: Final = tuple(form for form in FORMS if form.kind != "change")

# The usual names of bridges that are not bridgeN: br0, br-lan, vmbr0, docker0.
_LIKE_A_HOSTS_BRIDGE = re.compile(r"br(?![a-z])|[a-z-]*br[0-9]|docker[0-9]")
_NUMBER = re.compile("[0-9]+")
_LIKE_A_FILE = re.compile(r"\S*[./]")
_OWN_NAMES: dict[Noun, re.Pattern[str]] = {VIRT: re.compile("virt[0-9]"), BRIDGE: LIKE_A_BRIDGE}
# Usual words for taking something away, which are near to no word of ctl.
_REMOVING = ("remove", "rm", "del", "delete", "-add", "-bridge")
_OPPOSITES = {"up": "down", "down": "up", "add": "delete", "delete": "add", "static": "deladdr", "deladdr": "static"}
# What undoes a verb that has no opposite: the line that sets the default. "description" has no argument then.
DEFAULTS: Final[dict[tuple[Noun, str], str]] = {
    (VIRT, "mtu"): "mtu 1500",
    (VIRT, "owner"): "owner root",
    (VIRT, "group"): "group root",
    (VIRT, "backlog"): "backlog 0",
    (VIRT, "carrier"): "carrier always",
    (VIRT, "exclusive"): "exclusive read",
    (VIRT, "pace"): "pace 0",
    (VIRT, "description"): "description",
    (BRIDGE, "maxaddr"): "maxaddr 100",
    (BRIDGE, "timeout"): "timeout 1200",
    (BRIDGE, "maxage"): "maxage 20",
    (BRIDGE, "fwddelay"): "fwddelay 15",
    (BRIDGE, "hellotime"): "hellotime 2",
    (BRIDGE, "priority"): "priority 32768",
    (BRIDGE, "groupfwd"): "groupfwd 0",
}
_TRUTHS = ("on", "off", "yes", "no", "true", "false", "1", "0")
# Words of ip(8), ifconfig(8) and other programs for inet and inet6. Others may precede an address: gateway, route.
_LIKE_INET = re.compile(r"-?(?:ip|inet|addr)[a-z0-9_-]*|-[46]")
_SURELY_INET = re.compile(r"-?(?:ip(?:v?[46])?(?:addr)?|addr)|-[46]")  # "address" is also the file of the MAC address
_VLAN = re.compile(r"-?vlan(?![a-z])|pvid|vid")
_HINT_OF_VLAN: dict[Noun, str] = {
    VIRT: '"ip link add link tapN name tapN.10 type vlan id 10" adds one to a tap; "bridge vlan" sets those of a port',
    BRIDGE: 'use "ip link set bridgeN type bridge vlan_filtering 1" and "bridge vlan"',
}
_LIKE_A_HOSTS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def of_command(first: str, following: str = "") -> str:
    """Return the end of an error message about the first word of a line, which is no command and names no target.

    following: the second word of the line.
    """
    if meant := apart(first, following):
        return f"did you mean {quoted(meant)}?"
    if verbs.find(VIRT, first):
        return f"a verb goes after its interface, as in virt0 {first}"
    if LIKE_A_UNIT.match(first):
        return "a line that changes an interface begins with virtN"
    if bridge := any_bridge(first):
        return f"a line that changes a bridge begins with bridgeN{bridge}"
    if _LIKE_A_FILE.match(first):
        return "to run the lines of a file, use cat FILE >ctl"
    if first == "help":
        return f"{HELP} prints the help, and the file help has it"
    near = _nearest(first, dict.fromkeys(form.kind for form in _COMMANDS), "destroy")
    return f"{f'did you mean {quoted(near)}? ' if near else ''}{HELP} lists the commands"


def apart(word: str, following: str) -> str:
    """Return the name of a bridge that is written as two words, "bridge 0", or "" if these are not such words."""
    return f"bridge{following}" if word == "bridge" and _NUMBER.fullmatch(following) else ""


def of_end(word: str) -> str:
    """Return the end of an error message about a word that should be an end of a cable."""
    if LIKE_A_BRIDGE.match(word) or _LIKE_A_HOSTS_BRIDGE.match(word):
        return f"{quoted(f'virtN bridge {word}')} puts a tap into a bridge"
    if _LIKE_A_HOSTS_NAME.fullmatch(word):
        return f"{quoted(f'bridgeN add {word}')} puts an interface of the host into a bridge"
    return f"a socket is {SOCKETS}"


def unknown_verb(noun: Noun, word: str, words: Words, last: str, *, nameless: bool) -> str:
    """Return the error message for a taken word that is no verb.

    last: the verb before it, or "". nameless: whether the line lacks the name of its target.
    """
    if hint := of_word(word, words) or _of_verb(noun, word, words, last):
        return f"unknown verb {quoted(word)}{hint}"
    known = [verb.name for verb in verbs.VERBS if verb.noun == noun]
    if last == "impair":  # a word of an impairment or the next verb, misspelled
        meant = did_you_mean(word, [*WORDS, *known]) or ":"
        return f"{quoted(word)} is neither {EXAMPLE} nor a verb{meant} {HELP} lists the verbs"
    near = "" if LIKE_A_BRIDGE.match(word) else _nearest(word, known, "delete" if noun == BRIDGE else "")
    if near:
        return f"unknown verb {quoted(word)}: did you mean {quoted(near)}? {HELP} lists the verbs"
    names = f"{NAMES}, and " if nameless and not last else ""
    bridge = any_bridge(word) if noun == VIRT else ""
    return f"unknown verb {quoted(word)}: {names}{HELP} lists the verbs{bridge}"


def _nearest(word: str, known: Iterable[str], removes: str) -> str:
    """Return the known word that was probably meant by an unknown one, or "". removes: the word for _REMOVING."""
    if word in _REMOVING:
        return removes
    return nearest(word, known)


def any_bridge(name: str) -> str:
    """Return what to write about a bridge of the host, as the end of an error message; "" for another name."""
    if not _LIKE_A_HOSTS_BRIDGE.match(name):
        return ""
    return f"; {quoted(f'virtN bridge {name}')} puts a tap into a bridge of the host"


def of_own(word: str, noun: Noun) -> str:
    """Return the end of an error message for the first word of a line of an own ctl if it is a name, else ""."""
    kind = "bridge" if noun == BRIDGE else "interface"
    return f": leave out the name, since this file is about one {kind}" if _OWN_NAMES[noun].match(word) else ""


def of_word(word: str, words: Words) -> str:
    """Return the end of an error message for a taken word that is no verb: what the user probably meant, or ""."""
    if hint := hint_of_unit(words.before(), word):
        return hint
    if hint := _of_address(word, words.peek() or ""):
        return hint
    if any((word, VIRT) == (form.kind, form.noun) for form in _COMMANDS):
        return f": {word} begins a line of the mount's ctl"
    if meant := verbs.of_file_named(word):
        return f": the verb is {' or '.join(f'{verb.name} ({verb.meaning})' for verb in meant)}"
    return ""


def _of_address(word: str, following: str) -> str:
    """Return the end of an error message for an IP address without its verb, or after another word, else ""."""
    address = next((one for one in (word, following) if _is_address(one)), "")
    minus = "-" if re.match("-[a-z]", word) or word in _REMOVING else ""
    if address and (address == word or word in _REMOVING or _LIKE_INET.fullmatch(word.lower())):
        verb = "inet6" if ":" in address else "inet"
        return f": write {quoted(f'{minus}{verb} {address}')}"
    if _SURELY_INET.fullmatch(word.lower()):
        verb = "inet6" if "6" in word else "inet"
        return f": did you mean {quoted(minus + verb)}? {HELP} lists the verbs"
    return ""


def _is_address(word: str) -> bool:
    try:
        ip_interface(word)
    except ValueError:
        return False
    return True


def _of_verb(noun: Noun, word: str, words: Words, last: str) -> str:
    """Return what of_word() returns, for a word in the place of a verb: "-up", the "on" of "strict on", or "loss"."""
    meant = verbs.find(noun, word.removeprefix("-"))
    if word.startswith("-") and meant is not None:
        opposite = verbs.find(noun, _OPPOSITES.get(meant.name, ""))
        if opposite:
            return f": did you mean {quoted(opposite.name)}? {HELP} lists the verbs"
        if (default := DEFAULTS.get((noun, meant.name))) is not None:
            empty = " with nothing after it" if default == meant.name else ""
            return f": {meant.name} has no opposite: {quoted(default)}{empty} sets the default"
        return f": {meant.name} has no opposite; {HELP} lists the verbs"
    before = verbs.known(noun, last) if last else None
    if word.lower() in _TRUTHS and before is not None and not before.arguments:
        file = verbs.of_file(noun, before.file) if before.file else (before,)
        ways = " or ".join(verb.name for verb in file if not verb.arguments)
        return f": {before.name} has no value: write {ways}"
    if _VLAN.match(word):
        return f": ctl has no verb for VLANs: {_HINT_OF_VLAN[noun]}"
    if noun == VIRT and word in WORDS:
        return f": write {quoted(' '.join(filter(None, ('impair', word, words.peek()))))}"
    return ""
