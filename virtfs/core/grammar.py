"""The language of ctl: parse lines into commands. core.line_text formats commands as lines.

A line is a list of words, separated by blanks or tabs. A word that begins with "#" starts a comment. After a verb that
takes the rest of the line, however, "#" and blanks are part of the text. Parsing checks form and ranges only. The
rights of the user, and whether the objects exist, are checked when the command runs.
"""

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from errno import E2BIG, EINVAL
from typing import TypeVar

from virtfs.core import verbs
from virtfs.core.arguments import Argument, take_impairments
from virtfs.core.errors import VirtError
from virtfs.core.ids import BridgeName, Unit
from virtfs.core.impairment_text import EXAMPLE, WORDS
from virtfs.core.line_words import LINE_MAX, Words, too_long
from virtfs.core.nearest import did_you_mean
from virtfs.core.quantities import parse_bridge_name, parse_unit_name
from virtfs.core.quoting import quoted
from virtfs.core.socketname import SocketName, names_socket, parse_socket
from virtfs.core.unknown_words import (
    LIKE_A_BRIDGE,
    LIKE_A_UNIT,
    NAMES,
    any_bridge,
    apart,
    of_command,
    of_end,
    of_own,
    of_word,
    unknown_verb,
)
from virtfs.core.verbs import BRIDGE, FORMS, VIRT, Form, Kind, Noun, Verb

# Maximum number of verbs in a line. A limit is needed because all other commands wait while a line runs.
VERBS_MAX = 256
ALL = "all"  # stands for everything, after `destroy`
VALUE_MAX = 256  # characters in a value written to an attribute file

_WHITE_SPACE = " \t\n\v\f\r"  # isspace(3) in the C locale
_FORM_OF_WORD: dict[tuple[str, Noun], Form] = {(form.kind, form.noun): form for form in FORMS if form.kind != "change"}
_CHECK = re.compile(r"[ \t]*check(?:[ \t]+|$)")


@dataclass(frozen=True, slots=True)
class Action:
    """A verb with the values of its arguments. The verb's Argument kinds determine the types of the values."""

    verb: str
    args: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the mount's ctl.

    target: the interface or bridge. None for a `create` that takes the lowest free unit, and for a `destroy` of
    everything.
    actions: the verbs, in order. The impairments of a cable are a single action `impair`, in which `in` is the
    direction from the peer and `out` the direction to the peer.
    A `mark` has a single action `mark`.
    peer: the interface or the socket at the other end of a cable. None for an `uncable` that names one end, and for
    other commands.
    checks: whether the line begins with "check". Such a line is checked but not carried out.
    """

    kind: Kind
    target: Unit | BridgeName | None = None
    actions: tuple[Action, ...] = ()
    peer: Unit | SocketName | None = None
    checks: bool = False


def split_check(line: str) -> tuple[bool, str]:
    """Return whether a line begins with the word "check", and the rest of the line. Repeating the word has no effect.

    VirtError: EINVAL, nothing follows "check".
    """
    checks = False
    while match := _CHECK.match(line):
        checks, line = True, line[match.end() :]
    if checks and not line:
        raise VirtError(EINVAL, '"check" needs a line after it')
    return checks, line


T = TypeVar("T")

# A generator that parses a line and pauses after each verb, so that its caller can let other tasks run. It returns the
# parsed line.
Parsing = Generator[None, None, T]


def parse(line: str) -> Command | None:
    """Parse one line of the mount's ctl, without its newline. Return None for a blank line or a comment.

    Errors: VirtError with EINVAL (grammar), ERANGE (number out of range) or E2BIG (too many verbs or bytes). The error
    message quotes the offending text.
    """
    return _whole(parsing(line))


def parse_verbs(line: str, noun: Noun = VIRT) -> tuple[Action, ...]:
    """Parse one line of an interface's own ctl, which consists of verbs only.

    Return () for a blank line or a comment. Errors: those of parse().
    """
    return _whole(parsing_verbs(line, noun))


def _whole(steps: Parsing[T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def parsing(line: str) -> Parsing[Command | None]:
    """Parse one line as parse() does, but pause after each verb."""
    checks, line = split_check(line)
    command = yield from _parse_line(Words(line))
    return replace(command, checks=True) if command and checks else command


def _parse_line(words: Words) -> Parsing[Command | None]:
    first = words.take()
    if first is None:
        return None
    form = _FORM_OF_WORD.get((first, VIRT))
    if form is None:
        return (yield from _parse_change(first, words))
    form = _FORM_OF_WORD.get((first, _kind_named(words.peek())), form)
    target = _parse_target(form, words)
    if form.kind in ("cable", "uncable"):
        return _parse_cable(form, target, words)
    if form.kind == "mark":
        mark = verbs.known(VIRT, "mark")
        return Command("mark", None, (Action("mark", tuple(_parse_arguments(mark, words))),))
    actions = (yield from _parse_actions(words, form.noun, makes=True, named=target is not None)) if form.verbs else ()
    words.expect_end(form.usage)
    return Command(form.kind, target, actions)


def parsing_verbs(line: str, noun: Noun = VIRT) -> Parsing[tuple[Action, ...]]:
    """Parse one line as parse_verbs() does, but pause after each verb."""
    return _parse_actions(Words(line), noun, own=True)


def file_action(file: str, text: str) -> Action:
    """Return the action that writing `text` to an attribute file performs. Surrounding white space is ignored.

    file: the name of the file in the verb table.
    Errors: KeyError if no verb has that file; VirtError with EINVAL or ERANGE, or with E2BIG for more than LINE_MAX
    bytes; the error message quotes the text.
    """
    candidates = verbs.of_file(VIRT, file)
    if not candidates:
        raise KeyError(file)
    value = text.strip(_WHITE_SPACE)
    if too_long(value):
        raise VirtError(E2BIG, f"{file}: {quoted(value)} is longer than {LINE_MAX} bytes")
    for verb in candidates:
        if verb.value == value:
            return Action(verb.name)
    for verb in candidates:
        if verb.arguments:
            _check_length(file, verb, value)
            return Action(verb.name, (_parse_argument(file, verb.arguments[0], value),))
    allowed = " or ".join(sorted(verb.value for verb in candidates if verb.value is not None))
    raise VirtError(EINVAL, f"{file}: {quoted(value)} is not {allowed}")


def _parse_cable(form: Form, target: Unit | BridgeName | None, words: Words) -> Command:
    if form.kind == "uncable" and words.peek() is None:
        return Command(form.kind, target)
    peer = _parse_peer(form, words)
    if peer is None:
        raise VirtError(EINVAL, f"{quoted(form.kind)} needs two ends: {form.usage}")
    if peer == target:
        raise VirtError(EINVAL, f"{quoted(f'virt{peer}')} cannot be both ends of a cable")
    impair = verbs.known(VIRT, "impair")
    actions: tuple[Action, ...] = ()
    if form.kind == "cable" and words.peek() is not None:
        actions = (Action("impair", (_take_words(impair, take_impairments, words),)),)
    if (word := words.take()) is not None:
        if actions:  # only impairments follow the ends, so this was meant as one
            meant = of_word(word, words) or did_you_mean(word, WORDS)
            raise VirtError(EINVAL, f"{quoted(word)} is not {EXAMPLE}{meant}")
        raise VirtError(EINVAL, f"{quoted(word)} is one word too many{of_word(word, words) or f': {form.usage}'}")
    return Command(form.kind, target, actions, peer)


def _parse_peer(form: Form, words: Words) -> Unit | SocketName | None:
    word = words.peek()
    if word is None:
        return None
    if not names_socket(word):
        _check_end(word)
        peer = _parse_target(form, words)
        return peer if isinstance(peer, int) else None
    words.take()
    return parse_socket(word)


def _check_end(word: str) -> None:
    """Raise EINVAL if a word is not meant as an interface."""
    if LIKE_A_UNIT.match(word):
        return
    if names_socket(word):
        raise VirtError(EINVAL, f"{quoted(word)} must be the second end: write {quoted(f'cable N {word}')}")
    raise VirtError(EINVAL, f"{quoted(word)} is not an end of a cable, which is N, virtN or a socket: {of_end(word)}")


def _parse_change(first: str, words: Words) -> Parsing[Command]:
    if _kind_named(first) == BRIDGE:
        actions = yield from _parse_actions(words, BRIDGE)
        return _with_verbs(Command("change", parse_bridge_name(first), actions), first)
    if not first.startswith("virt"):
        raise VirtError(EINVAL, f"unknown command {quoted(first)}: {of_command(first, words.peek() or '')}")
    unit = parse_unit_name(first, "virt")
    return _with_verbs(Command("change", unit, (yield from _parse_actions(words, VIRT))), first)


def _with_verbs(command: Command, first: str) -> Command:
    if not command.actions:
        raise VirtError(EINVAL, f"{quoted(first)} needs a verb after it")
    return command


def _kind_named(word: str | None) -> Noun:
    """Return the kind of object that a word names, even if the name is not valid.

    "bridge" without a number is a verb of virtN, so it does not name a bridge.
    """
    return BRIDGE if word is not None and LIKE_A_BRIDGE.match(word) else VIRT


def _parse_target(form: Form, words: Words) -> Unit | BridgeName | None:
    word = words.peek()
    if form.target == "none":
        return None
    if form.target == "optional" and (word is None or not _names_unit(word)):
        return None
    if word is None:
        forms = ", or ".join(other.usage for other in FORMS if other.kind == form.kind)
        raise VirtError(EINVAL, f"{quoted(form.kind)} needs an interface: {forms}")
    words.take()
    if form.kind == "destroy" and word == ALL:
        return None
    if form.kind in ("cable", "uncable"):
        _check_end(word)
    if form.noun == BRIDGE:
        return parse_bridge_name(word)
    if (form.kind, BRIDGE) in _FORM_OF_WORD and not LIKE_A_UNIT.match(word):
        more = f"; {ALL} stands for everything" if form.kind == "destroy" else any_bridge(word)
        if name := apart(word, words.peek() or ""):
            more = f": did you mean {quoted(f'{form.kind} {name}')}?"
        raise VirtError(EINVAL, f"{quoted(word)} is not a name: {NAMES}{more}")
    return parse_unit_name(word, "", "virt")


def _names_unit(word: str) -> bool:
    """Return whether a word is meant as a unit rather than as a verb, even if it is not a valid unit."""
    return verbs.find(VIRT, word) is None and LIKE_A_UNIT.match(word) is not None


def _parse_actions(
    words: Words, noun: Noun, *, makes: bool = False, named: bool = True, own: bool = False
) -> Parsing[tuple[Action, ...]]:
    """Parse verbs.

    makes: whether the command is `create` or `ensure`. named: whether it names its target. own: whether the line is
    from the own ctl of an interface or a bridge.
    """
    actions: list[Action] = []
    # The last verb `bridge` of the line, unless `-bridge` follows it. A later `netns` is an error, because moving the
    # tap to another namespace takes the tap out of its bridge.
    bridge: Action | None = None
    while (word := words.take()) is not None:
        verb = verbs.find(noun, word)
        if makes and not named and not actions and (name := apart(word, words.peek() or "")):
            why = "to put its tap into a bridge whose name is a number, give the interface its number, too"
            raise VirtError(EINVAL, f"did you mean {quoted(f'create {name}')}? {why}")
        if verb is None:
            last = actions[-1].verb if actions else ""
            if own and not actions and (why := of_own(word, noun)):
                raise VirtError(EINVAL, f"unknown verb {quoted(word)}{why}")
            raise VirtError(EINVAL, unknown_verb(noun, word, words, last, nameless=makes and not named))
        if len(actions) == VERBS_MAX:
            raise VirtError(
                E2BIG, f"{quoted(word)} is one verb too many: a line may have at most {VERBS_MAX} verbs, so split it"
            )
        action = Action(verb.name, tuple(_parse_arguments(verb, words)))
        actions.append(action)
        if verb.ends_line:
            words.expect_end(f"{verb.name} cannot be undone, so it must end its line")
        if verb.ends_change and not makes:
            words.expect_end(f"{verb.name} cannot be undone, so it must end a line that changes an interface")
        if noun == VIRT and action.verb in ("bridge", "-bridge"):
            bridge = action if action.args else None
        if action.verb == "netns" and bridge is not None:
            name = quoted(f"bridge {bridge.args[0]}")
            raise VirtError(
                EINVAL,
                "netns takes the tap out of its bridge: for a bridge here, create a second interface and cable the two;"
                f" for one in the new namespace, put {name} after netns",
            )
        yield
    return tuple(actions)


def _parse_arguments(verb: Verb, words: Words) -> list[object]:
    if verb.rest_of_line:
        return [_parse_argument(verb.name, verb.arguments[0], words.take_rest())]
    values = []
    for argument in verb.arguments:
        if argument.take is not None:
            values.append(_take_words(verb, argument.take, words))
            continue
        word = words.take()
        if word is None:
            raise VirtError(EINVAL, f"{quoted(verb.name)} needs {argument.noun}: {verb.usage}")
        values.append(_parse_argument(verb.name, argument, word))
    if words.peek() in verb.options:
        values.append(words.take())
    return values


def _take_words(verb: Verb, take: Callable[[Sequence[str]], tuple[object, int]], words: Words) -> object:
    try:
        value, count = take(words.rest())
    except VirtError as error:
        raise VirtError(error.errno, f"{verb.name}: {error.strerror}") from None
    for _ in range(count):
        words.take()
    return value


def _parse_argument(name: str, argument: Argument, text: str) -> object:
    """Return the value of an argument. Error messages begin with `name`, the verb or file that the user wrote."""
    try:
        return argument.parse(text)
    except VirtError as error:
        raise VirtError(error.errno, f"{name}: {error.strerror}") from None


def _check_length(file: str, verb: Verb, value: str) -> None:
    if len(value) > VALUE_MAX and not verb.rest_of_line and verb.arguments[0].take is None:
        raise VirtError(EINVAL, f"{file}: {quoted(value)} is longer than {VALUE_MAX} characters")
