"""Completion of command lines. The scripts in completions/ run `virtfs __complete WORD ...` to get the candidates.

The WORDs are those after `virtfs`, up to and including the one to complete. The first line of the output tells the
script which candidates the shell itself should add: "none", "files", "directories", or "command N". In the last case,
word number N and the words after it are a separate command line. Each further line is a candidate, a tab, and a
description of the candidate.
"""

import argparse
import grp
import json
import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from virtfs.cli.columns import host_of
from virtfs.cli.completion_line import Candidate, Names, of_line, of_verbs
from virtfs.cli.mounts import ask, chosen, read, say, visible
from virtfs.cli.shell_join import running
from virtfs.core.verbs import BRIDGE, VIRT
from virtfs.fuse.mounttable import resolve
from virtfs.host import netlink_messages as m
from virtfs.host.netlink_values import kind_of, link_of
from virtfs.host.rtnl import Rtnl

_PATIENCE = 1.0  # seconds to wait for a mount to answer; the user is waiting for the candidates
_ETHERNET = 1  # ARPHRD_ETHER, linux/if_arp.h
_OF_ONE = re.compile(r"(virt|bridge)[0-9]+")
_OPTION = re.compile(r"^  ([a-z_]+=?)[A-Z]*(?:  *(.*))?$", re.MULTILINE)  # a mount option in the help text


_COMMAND = argparse.Action([], "command", metavar="CMD")  # the words after the "--" of exec


class Given(NamedTuple):
    """The options and words of a command that precede the word to complete."""

    options: dict[str, str]
    words: list[str]


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print the candidates for the last word of a command line, in the format that the module docstring describes."""
    *before, current = words or [""]
    shell, candidates = _candidates(parser, before, current)
    shown = (f"{word}\t{meaning}" for word, meaning in candidates if word.startswith(current))
    say("".join(f"{line}\n" for line in (shell, *dict.fromkeys(shown)) if line.replace("\t", "").isprintable()))


def _candidates(
    parser: argparse.ArgumentParser, before: Sequence[str], current: str
) -> tuple[str, Iterator[Candidate] | list[Candidate]]:
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if not before:
        helps = [(action.dest, action.help or "") for action in commands._choices_actions]
        return "none", [*helps, *_options(parser)]
    chosen_one = commands.choices.get(before[0])
    if chosen_one is None:
        return "none", []
    given, action, at = _walk(chosen_one, before)
    metavar = "" if action is None else str(action.metavar)
    if current.startswith("-") and metavar not in ("LINE", "OPTIONS") and not given.words:
        return "none", _options(chosen_one)
    match metavar:
        case "DIR":
            return "directories", _directories(before[0])
        case "FILE":
            return "files", []
        case "CMD":
            return f"command {at}", []
        case "OPTIONS":
            return "none", _mount_options(chosen_one.description or "", current)
        case "COMMAND":
            return "none", [(action.dest, action.help or "") for action in commands._choices_actions]
        case "N":
            return "directories", [(name.removeprefix(VIRT), note) for name, note in _names({}).virts.items()]
        case "LINE":
            options = [] if given.words else _options(chosen_one)
            return "none", [*_of_ctl(given), *options]
    return "none", []


def _directories(command: str) -> list[Candidate]:
    """Return the directories that a command may name, besides those that the shell finds."""
    if command == "mount":
        return []
    if command == "shell":
        return [(shell.directory, "a virtfs shell") for shell in running() if shell.mounted]
    return [(mount.directory, "a mount") for mount in visible()]


def _options(parser: argparse.ArgumentParser) -> list[Candidate]:
    return [(option, action.help or "") for action in parser._actions for option in action.option_strings]


def _walk(parser: argparse.ArgumentParser, before: Sequence[str]) -> tuple[Given, argparse.Action | None, int]:
    """Parse the words before the one to complete, starting with the subcommand.

    Return the options and positional words; the argparse action that the word to complete belongs to, or None; and the
    index in `before` of the first positional word.
    """
    by_name = {option: action for action in parser._actions for option in action.option_strings}
    places = [action for action in parser._actions if not action.option_strings]
    options: dict[str, str] = {}
    if before[0] == "exec" and "--" in before:
        return Given(options, []), _COMMAND, list(before).index("--") + 1
    at = 1
    while at < len(before) and before[at].startswith("-"):
        action = by_name.get(before[at])
        at += 1
        if before[at - 1] == "--":
            break
        if action is not None and action.nargs != 0:
            if at == len(before):
                return Given(options, []), action, at
            options[action.dest] = before[at]
            at += 1
    words = list(before[at:])
    action = places[0] if places and (not words or places[0].nargs == argparse.REMAINDER) else None
    return Given(options, words), action, at


def _mount_options(text: str, current: str) -> list[Candidate]:
    """Return the candidates for a list of mount options. Each is the list so far plus one more option."""
    so_far = current[: current.rfind(",") + 1]
    used = {option.partition("=")[0] for option in so_far.split(",")}
    found = _OPTION.findall(text.partition("options, after -o")[2])
    return [(so_far + option, meaning) for option, meaning in found if option.strip("=") not in used]


def _of_ctl(given: Given) -> Iterator[Candidate]:
    target = os.path.basename(os.path.abspath(given.options.get("directory", "/")))
    target = target if _OF_ONE.fullmatch(target) else ""
    names = _names(given.options, f"/{target}")
    line = [word for words in given.words for word in words.split()]
    if target:
        yield from of_verbs(BRIDGE if target.startswith(BRIDGE) else VIRT, target, line, names)
    else:
        yield from of_line(line, names)
    if not line:
        yield "help", "print the commands and verbs"


def _names(options: Mapping[str, str], below: str = "/") -> Names:
    """Return the names in the mount that is selected by a command's options, and the names on the host.

    below: the suffix, such as `/virt3`, that is removed from the directory given with -d to get the mount point.
    """
    with suppress(OSError):
        return names_of(chosen(options.get("directory")).removesuffix(below).removesuffix("/bridge"))
    return Names()


def names_of(directory: str) -> Names:
    """Return the names in a mount and on the host. If the mount does not answer in time, its names are left out."""
    (answer,) = ask([resolve(directory)], lambda mount: read(mount, "status.json"), _PATIENCE)
    status = {"virts": [], "bridges": [], "cables": []} if answer.error else json.loads(answer.data)
    links = _links()
    taps = {virt["tap"]["name"]: virt["name"] for virt in status["virts"] if not virt["tap"]["netns"]}
    namespaces: list[str] = []
    with suppress(OSError):
        namespaces = sorted(os.listdir("/run/netns"))
    return Names(
        virts={virt["name"]: host_of(virt) for virt in status["virts"]},
        members={
            bridge["name"]: [taps.get(member["name"], member["name"]) for member in bridge["members"]]
            for bridge in status["bridges"]
        },
        addresses={virt["name"]: virt["tap"]["addresses"] for virt in status["virts"]}
        | {bridge["name"]: bridge["inet"] for bridge in status["bridges"]},
        cables=[(cable["ends"][0], cable["ends"][1]) for cable in status["cables"]],
        interfaces=[taps.get(link, link) for link, _, joins in links if joins],
        bridges=[link for link, bridge, _ in links if bridge],
        namespaces=namespaces,
        users=[user.pw_name for user in pwd.getpwall()],
        groups=[group.gr_name for group in grp.getgrall()],
    )


def _links() -> list[tuple[str, bool, bool]]:
    """Return the interfaces of the network namespace: the name, whether it is a bridge, whether a bridge can take it.

    /sys/class/net may be that of another namespace, as in `virtfs shell`.
    """
    found = []
    with suppress(OSError), Rtnl() as rtnl:
        for reply in rtnl.dump(m.RTM_GETLINK, m.link(0)):
            link, bridge = link_of(reply.body), kind_of(reply.body) == BRIDGE
            ethernet = m.IFINFOMSG.unpack_from(reply.body)[1] == _ETHERNET
            found.append((link.name, bridge, ethernet and not bridge and link.master is None))
    return sorted(found)
