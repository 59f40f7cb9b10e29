"""Format commands as lines of ctl, which core.grammar parses into the same commands."""

from collections.abc import Iterable
from dataclasses import replace

from virtfs.core import verbs
from virtfs.core.errors import VirtError
from virtfs.core.grammar import ALL, Action, Command
from virtfs.core.line_words import BLANKS
from virtfs.core.quoting import word
from virtfs.core.verbs import BRIDGE, VIRT, Noun


def format_command(command: Command) -> str:
    """Return the line that parse() turns into this command."""
    if command.checks:
        return f"check {format_command(replace(command, checks=False))}"
    if command.kind == "mark":
        return format_actions(command.actions)
    if command.kind == "change":
        start = f"virt{command.target}" if isinstance(command.target, int) else str(command.target)
    else:
        target = ALL if command.kind == "destroy" and command.target is None else command.target
        start = command.kind if target is None else f"{command.kind} {target}"
    if command.peer is not None:
        impairments = format_actions(command.actions).removeprefix("impair ")
        return f"{start} {command.peer} {impairments}".rstrip(BLANKS)
    noun: Noun = BRIDGE if isinstance(command.target, str) else VIRT
    makes = command.kind in ("create", "ensure")
    return f"{start} {format_actions(command.actions, noun, makes=makes)}".rstrip(BLANKS)


def format_actions(actions: tuple[Action, ...], noun: Noun = VIRT, *, makes: bool = False) -> str:
    """Return the line that parse_verbs() turns into these actions.

    makes: whether the actions follow `create` or `ensure` in the line.
    ValueError: the actions do not fit in one line, because a verb that must end its line is not the last.
    """
    for action in actions[:-1]:
        verb = verbs.known(noun, action.verb)
        if verb.ends_line or verb.rest_of_line or (verb.ends_change and not makes):
            raise ValueError(f"nothing can follow {verb.name} in a line")
    return " ".join(_format_action(action, noun) for action in actions)


def writable(actions: Iterable[Action], noun: Noun = VIRT) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
    """Return two tuples: the actions that a line can express, and those that it cannot.

    Other programs can give an interface or network namespace a name that a line cannot contain, such as one with a
    control character.
    """
    divided: dict[bool, list[Action]] = {True: [], False: []}
    for action in actions:
        divided[_can_be_written(action, noun)].append(action)
    return tuple(divided[True]), tuple(divided[False])


def unwritable_comment(subject: str, action: Action) -> str:
    """Return the comment that ctl shows instead of an action with a name that a line cannot contain."""
    names = " ".join(word(str(arg)) for arg in action.args if isinstance(arg, str))
    return f"# {subject} {action.verb} {names}: a line cannot contain this name"


def _format_action(action: Action, noun: Noun) -> str:
    verb = verbs.known(noun, action.verb)
    texts = [argument.format(value) for argument, value in zip(verb.arguments, action.args, strict=not verb.options)]
    option = map(str, action.args[len(verb.arguments) :])
    return " ".join((verb.name, *texts, *option)).rstrip(BLANKS)


def _can_be_written(action: Action, noun: Noun) -> bool:
    verb = verbs.known(noun, action.verb)
    for argument, value in zip(verb.arguments, action.args, strict=False):
        if isinstance(value, str):
            if value.startswith("#") and not verb.rest_of_line:
                return False
            try:
                argument.parse(value)
            except VirtError:
                return False
    return True
