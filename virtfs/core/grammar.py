"""The language of ctl: lines into commands and back.

A line is words separated by blanks or tabs. A word that begins with "#" starts a comment, except in the text
of a verb that takes the rest of the line: there "#" and blanks stand for themselves. Nothing here knows who
asks or what exists; a command that parse() gives is of good form and its numbers are in range.
"""

import re
from dataclasses import dataclass
from errno import E2BIG, EINVAL

from virtfs.core import verbs
from virtfs.core.arguments import Argument
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName, Unit
from virtfs.core.quantities import parse_bridge_name, parse_unit_name
from virtfs.core.quoting import quoted
from virtfs.core.verbs import BRIDGE, FORMS, VIRT, Form, Kind, Of, Verb
from virtfs.core.words import BLANKS, Words

VERBS_MAX = 256  # of one line, which runs in one go
VALUE_MAX = 256  # characters of a value written to an attribute file

_WHITE_SPACE = " \t\n\v\f\r"  # isspace(3) in the C locale
_FORM_OF_WORD: dict[tuple[str, Of], Form] = {(form.kind, form.of): form for form in FORMS if form.kind != "change"}
_LIKE_A_BRIDGE = re.compile(r"bridge[-+]?[0-9]")
_LIKE_A_UNIT = re.compile(r"[-+]?[0-9]|virt|tap(?:[0-9]|$)")


@dataclass(frozen=True, slots=True)
class Action:
    """One verb with its arguments' values, whose types are those of the verb's Argument kinds."""

    verb: str
    args: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the root's ctl. target is None in help, and in a create that takes the lowest free unit.

    peer: a cable's other end, whose impairments are an action `impair`; in is from the peer, out towards it.
    """

    kind: Kind
    target: Unit | BridgeName | None = None
    actions: tuple[Action, ...] = ()
    peer: Unit | None = None


def parse(line: str) -> Command | None:
    """One line of the root's ctl, without its "\\n"; None for a blank line or a comment.

    Errors: VirtError with EINVAL (grammar) or ERANGE (a number out of its range), quoting what was wrong.
    """
    words = Words(line)
    first = words.take()
    if first is None:
        return None
    form = _FORM_OF_WORD.get((first, VIRT))
    if form is None:
        return _parse_change(first, words)
    form = _FORM_OF_WORD.get((first, _kind_named(words.peek())), form)
    target = _parse_target(form, words)
    if form.kind in ("cable", "uncable"):
        return _parse_cable(form, target, words)
    actions = _parse_actions(words, form.of, makes=True) if form.verbs else ()
    words.expect_end(form.usage)
    return Command(form.kind, target, actions)


def parse_verbs(line: str, of: Of = VIRT) -> tuple[Action, ...]:
    """One line of an interface's own ctl, verbs without a name before them; () for a blank line or a comment.

    Errors: as parse().
    """
    return _parse_actions(Words(line), of)


def file_action(file: str, text: str, of: Of = VIRT) -> Action:
    """What writing `text` to an attribute file means, as a verb. White space around is ignored.

    file: as the table names it; KeyError for one that no verb mirrors.
    Errors: VirtError with EINVAL or ERANGE, quoting the text.
    """
    candidates = verbs.of_file(of, file)
    if not candidates:
        raise KeyError(file)
    value = text.strip(_WHITE_SPACE)
    for verb in candidates:
        if verb.value == value:
            return Action(verb.name)
    for verb in candidates:
        if verb.arguments:
            _check_length(file, verb, value)
            return Action(verb.name, (_parse_argument(file, verb.arguments[0], value),))
    allowed = " or ".join(sorted(verb.value for verb in candidates if verb.value is not None))
    raise VirtError(EINVAL, f"{file}: {quoted(value)} is not {allowed}")


def format_command(command: Command) -> str:
    """The line that parse() reads as this command."""
    if command.kind == "change":
        start = f"virt{command.target}" if isinstance(command.target, int) else str(command.target)
    else:
        start = command.kind if command.target is None else f"{command.kind} {command.target}"
    if command.peer is not None:
        impairments = format_actions(command.actions).removeprefix("impair ")
        return f"{start} {command.peer} {impairments}".rstrip(BLANKS)
    of: Of = BRIDGE if isinstance(command.target, str) else VIRT
    makes = command.kind in ("create", "ensure")
    return f"{start} {format_actions(command.actions, of, makes=makes)}".rstrip(BLANKS)


def format_actions(actions: tuple[Action, ...], of: Of = VIRT, *, makes: bool = False) -> str:
    """The line that parse_verbs() reads as these actions.

    makes: they follow `create` or `ensure` in their line.
    ValueError when no line can say them: a verb that ends its line is not the last one.
    """
    for action in actions[:-1]:
        verb = _known(action.verb, of)
        if verb.ends_line or verb.rest_of_line or (verb.ends_change and not makes):
            raise ValueError(f"nothing can follow {verb.name} in a line")
    return " ".join(_format_action(action, of) for action in actions)


def help_text() -> str:
    """The grammar of ctl and every verb, as the file help shows it."""
    commands = [(form.usage, form.meaning) for form in FORMS]
    return (
        "Commands of ctl, one a line. A word that begins with # starts a comment.\n"
        "A line is checked whole before any of it is done.\n"
        "netns ends its line, except in one of create and of ensure.\n"
        f"\n{_columns(commands)}\n"
        "Verbs of virtN, any number in a line. virtN/ctl takes them without a name before.\n"
        "(root): root alone may say it, also when the interface has an owner.\n"
        f"\n{_columns(_usages(VIRT))}\n"
        "Verbs of bridgeN, any number in a line, as brconfig(8) has them; all are root's.\n"
        "IF is an interface of the host, or virtN for the tap of that unit.\n"
        f"\n{_columns(_usages(BRIDGE))}"
    )


def _parse_cable(form: Form, target: Unit | BridgeName | None, words: Words) -> Command:
    peer = _parse_target(form, words)
    assert isinstance(peer, int)
    if peer == target:
        raise VirtError(EINVAL, f"{quoted(f'virt{peer}')} is both ends of it")
    impair = verbs.find(VIRT, "impair")
    assert impair is not None
    actions: tuple[Action, ...] = ()
    if form.kind == "cable" and words.peek() is not None:
        actions = (Action("impair", (_take_words(impair, impair.arguments[0], words),)),)
    words.expect_end(form.usage)
    return Command(form.kind, target, actions, peer)


def _parse_change(first: str, words: Words) -> Command:
    if _kind_named(first) == BRIDGE:
        return _with_verbs(Command("change", parse_bridge_name(first), _parse_actions(words, BRIDGE)), first)
    if not first.startswith("virt"):
        hint = ""
        if verbs.find(VIRT, first):
            hint = f": a verb follows its interface, as in virt0 {first}"
        elif _LIKE_A_UNIT.match(first):
            hint = ": a line about an interface begins with virtN"
        raise VirtError(EINVAL, f"unknown command {quoted(first)}{hint}")
    return _with_verbs(Command("change", parse_unit_name(first, "virt"), _parse_actions(words, VIRT)), first)


def _with_verbs(command: Command, first: str) -> Command:
    if not command.actions:
        raise VirtError(EINVAL, f"{quoted(first)} lacks a verb after it")
    return command


def _kind_named(word: str | None) -> Of:
    """What a word that may be a name means, be it a wrong one; "bridge" alone is a verb."""
    return BRIDGE if word is not None and _LIKE_A_BRIDGE.match(word) else VIRT


def _parse_target(form: Form, words: Words) -> Unit | BridgeName | None:
    word = words.peek()
    if form.target == "none":
        return None
    if form.target == "optional" and (word is None or not _names_unit(word)):
        return None
    if word is None:
        raise VirtError(EINVAL, f"{quoted(form.kind)} lacks the interface: {form.usage}")
    words.take()
    return parse_bridge_name(word) if form.of == BRIDGE else parse_unit_name(word, "", "virt")


def _names_unit(word: str) -> bool:
    """Whether a word that may be a unit or a verb is meant as a unit, be it a wrong one."""
    return verbs.find(VIRT, word) is None and _LIKE_A_UNIT.match(word) is not None


def _parse_actions(words: Words, of: Of, *, makes: bool = False) -> tuple[Action, ...]:
    actions: list[Action] = []
    bridge: Action | None = None  # the one that a move would take the tap out of
    while (word := words.take()) is not None:
        verb = verbs.find(of, word)
        if verb is None:
            raise VirtError(EINVAL, f"unknown verb {quoted(word)}")
        if len(actions) == VERBS_MAX:
            raise VirtError(E2BIG, f"{quoted(word)} is one verb too many: a line has {VERBS_MAX} at most")
        action = Action(verb.name, tuple(_parse_arguments(verb, words)))
        actions.append(action)
        if verb.ends_line:
            words.expect_end(f"{verb.name} cannot be undone and ends its line")
        if verb.ends_change and not makes:
            words.expect_end(f"{verb.name} cannot be undone and ends a line that changes an interface")
        if of == VIRT and action.verb in ("bridge", "-bridge"):
            bridge = action if action.args else None
        if action.verb == "netns" and bridge is not None:
            name = quoted(f"bridge {bridge.args[0]}")
            raise VirtError(EINVAL, f"{name} before netns: the move takes the tap out of it; name a bridge after netns")
    return tuple(actions)


def _parse_arguments(verb: Verb, words: Words) -> list[object]:
    if verb.rest_of_line:
        return [_parse_argument(verb.name, verb.arguments[0], words.take_rest())]
    values = []
    for argument in verb.arguments:
        if argument.take is not None:
            values.append(_take_words(verb, argument, words))
            continue
        word = words.take()
        if word is None:
            raise VirtError(EINVAL, f"{quoted(verb.name)} lacks {argument.name}: {verb.usage}")
        values.append(_parse_argument(verb.name, argument, word))
    if verb.option is not None and words.peek() == verb.option:
        values.append(words.take())
    return values


def _take_words(verb: Verb, argument: Argument, words: Words) -> object:
    assert argument.take is not None
    try:
        value, count = argument.take(words.rest())
    except VirtError as error:
        raise VirtError(error.errno, f"{verb.name}: {error.strerror}") from None
    for _ in range(count):
        words.take()
    return value


def _parse_argument(name: str, argument: Argument, text: str) -> object:
    """The value of an argument; an error begins with the name the user said, the verb's or the file's."""
    try:
        return argument.parse(text)
    except VirtError as error:
        raise VirtError(error.errno, f"{name}: {error.strerror}") from None


def _check_length(file: str, verb: Verb, value: str) -> None:
    if len(value) > VALUE_MAX and not verb.rest_of_line and verb.arguments[0].take is None:
        raise VirtError(EINVAL, f"{file}: {quoted(value)} is too long")


def _known(name: str, of: Of) -> Verb:
    verb = verbs.find(of, name)
    if verb is None:
        raise ValueError(f"no verb {name}")
    return verb


def _format_action(action: Action, of: Of) -> str:
    verb = _known(action.verb, of)
    texts = [argument.format(value) for argument, value in zip(verb.arguments, action.args, strict=not verb.option)]
    option = [verb.option] if verb.option and len(action.args) > len(verb.arguments) else []
    return " ".join((verb.name, *texts, *option)).rstrip(BLANKS)


def _usages(of: Of) -> list[tuple[str, str]]:
    return [(verb.usage, _meaning(verb)) for verb in verbs.VERBS if verb.of == of]


def _meaning(verb: Verb) -> str:
    return f"{verb.meaning} (root)" if verb.root_only else verb.meaning


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "".join(f"  {left:{width}}  {right}\n" for left, right in rows)
