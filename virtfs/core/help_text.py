"""The text of the file help: the grammar of ctl, and every command and verb from their tables."""

from textwrap import fill

from virtfs.core.socketname import FORMS as SOCKETS
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT, Noun, Verb


def help_text() -> str:
    """Return the text of the file help: the grammar of ctl and every verb."""
    commands = [(form.usage, form.meaning) for form in FORMS]
    return (
        "Commands of ctl, one per line. A word that begins with # starts a comment.\n"
        "A line is checked as a whole before any of it takes effect.\n"
        "netns must be the last verb of its line, except after create and ensure.\n"
        f"\n{_columns(commands)}"
        f"{fill(f'SOCKET is {SOCKETS}.', 100, break_on_hyphens=False)}\n\n"
        "Verbs of virtN, any number in a line. In virtN/ctl they are written without the name virtN.\n"
        "(root): only root may use the verb, even if the interface has another owner.\n"
        f"\n{_columns(_usages(VIRT))}\n"
        "Verbs of bridgeN, any number in a line, as in brconfig(8); only root may use them.\n"
        "IF is an interface of the host, or virtN for the tap of that unit.\n"
        f"\n{_columns(_usages(BRIDGE))}"
    )


def help_about(word: str) -> str:
    """Return the lines of the help about a command, or about a verb and its opposite, or "" if there are none."""
    commands = [(form.usage, form.meaning) for form in FORMS if form.kind == word]
    verbs = [
        (f"{noun}N {verb.usage}", _meaning(verb))
        for noun in (VIRT, BRIDGE)
        for verb in VERBS
        if verb.noun == noun and verb.name.removeprefix("-") == word.removeprefix("-")
    ]
    sockets = fill(f"SOCKET is {SOCKETS}.", 100, break_on_hyphens=False) + "\n"
    rows = commands + verbs
    return (_columns(rows) if rows else "") + (sockets if any("SOCKET" in usage for usage, _ in rows) else "")


def _usages(noun: Noun) -> list[tuple[str, str]]:
    return [(verb.usage, _meaning(verb)) for verb in VERBS if verb.noun == noun]


def _meaning(verb: Verb) -> str:
    return f"{verb.meaning} (root)" if verb.root_only else verb.meaning


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "".join(f"  {left:{width}}  {right}\n" for left, right in rows)
