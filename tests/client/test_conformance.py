"""Every verb, command and file is reachable from Python, and the API names no others."""

import os
import stat
import subprocess
import sys

import pytest

import virtfs
from virtfs.client import lines, values
from virtfs.client.events import Event
from virtfs.core import grammar, impairment_text
from virtfs.core.events import EVENTS
from virtfs.core.impairment import UNIMPAIRED
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT, Noun

# The method for each file that is not the value of an attribute.
METHODS = {
    virtfs.Mount: {
        "clone": "clone",
        "events": "events",
        "pcap": "capture",
        "status.json": "status",
        "last_error": "last_error",
        "tapN": "__getitem__",
    },
    virtfs.Virt: {
        "frame": "open",
        "stream": "stream",
        "hex": "hex",
        "rx": "rx",
        "pcap": "capture",
        "history": "history",
        "inject": "inject",
        "clients": "clients",
        "fd": "tap",
        **{f"wait/{condition}": "wait" for condition in ("up", "down", "carrier", "reader", "frame", "gone")},
    },
}
FOLDERS = {"": virtfs.Mount, "virtN/": virtfs.Virt, "virtN/tap/": virtfs.Host, "bridge/bridgeN/": virtfs.Bridge}
# An argument for each verb that does not accept "1".
_ARGUMENTS = {
    "link": "02:00:00:00:00:01", "taplink": "02:00:00:00:00:01", "deladdr": "02:00:00:00:00:01", "mode": "600",
    "static": "tap1 02:00:00:00:00:01", "carrier": "open", "exclusive": "both", "impair": "delay 20ms", "mtu": "1500",
    "ifpriority": "tap1 4", "ifpathcost": "tap1 4", "ifgroupfwd": "tap1 0x8", "groupfwd": "0x8", "maxage": "20",
    "fwddelay": "15", "inet": "10.0.0.1/8", "inet6": "2001:db8::1/64", "-inet": "10.0.0.1", "-inet6": "2001:db8::1",
}  # fmt: skip


def keyword(verb: str) -> str:
    return f"no_{verb[1:]}" if verb.startswith("-") else verb


@pytest.mark.parametrize(("noun", "keywords"), [(VIRT, lines.VirtVerbs), (BRIDGE, lines.BridgeVerbs)])
def test_every_verb_has_its_keyword(noun: Noun, keywords: type) -> None:
    verbs = {verb.name: verb for verb in VERBS if verb.noun == noun}
    # Some verbs have no argument and end the effect of another verb. They are the value False of that other verb.
    alone = {name for name, verb in verbs.items() if not verb.arguments and not verb.options}
    off = {name for name in alone if name == "down" or name[0] == "-"}
    assert {*keywords.__annotations__} == {keyword(name) for name in verbs.keys() - off}
    for name, verb in verbs.items():
        if name in off:
            line = lines.words({"up" if name == "down" else name[1:]: False}, noun)
        else:
            line = lines.words({keyword(name): _ARGUMENTS.get(name, "1") if verb.arguments else True}, noun)
        assert [action.verb for action in grammar.parse_verbs(line, noun)] == [name]


def test_every_command_has_its_method() -> None:
    methods = {"change": virtfs.Virt.set}
    for form in FORMS:
        assert form.kind in methods or hasattr(virtfs.Mount, form.kind), form.kind


def test_every_word_of_an_impairment_has_its_keyword() -> None:
    words = {"distribution": "normal", "rate": "1mbit", "gap": "5", "limit": "5", "seed": "5", "delay": "20ms 5ms"}
    line = lines.impairment("", {name: words.get(name, "1%") for name in lines.Impairment.__annotations__})
    impairment, count = impairment_text.parse_impairment(line.split())
    assert count == len(line.split())
    assert impairment != UNIMPAIRED
    assert {*lines.Impairment.__annotations__} == {*impairment_text._PARSERS}


def test_every_event_has_its_kind() -> None:
    assert {*EVENTS} <= {*_members(Event.__annotations__["kind"])}


def _members(kind: object) -> set[object]:
    inner = getattr(kind, "__args__", ())
    return set().union(*map(_members, inner)) if inner else {kind}


def reachable() -> dict[str, bool]:
    """Return the files that the API reaches, and whether it has an attribute that sets their value."""
    found = {}
    for folder, kind in FOLDERS.items():
        for base in kind.__mro__:
            for value in vars(base).values():
                if isinstance(value, values.Value):
                    found[folder + value.file] = isinstance(value, values.Setting)
        for file, method in METHODS.get(kind, {}).items():
            assert hasattr(kind, method), method
            found[folder + file] = False
    return found


def files(net: virtfs.Mount) -> dict[str, bool]:
    """Return the files of a mount, and whether they are texts that can be written."""
    found = {}
    for place, folders, names in os.walk(net.path):
        for name in names + [name for name in folders if os.path.islink(f"{place}/{name}")]:
            path = f"{place}/{name}"
            mode = os.lstat(path).st_mode
            label = os.path.relpath(path, net.path)
            for word in ("virt", "tap", "bridge"):
                label = label.replace(f"{word}3", f"{word}N")
            found[label] = stat.S_ISREG(mode) and bool(mode & 0o200)
    return found


def test_every_file_is_reachable(net: virtfs.Mount) -> None:
    v = net.create(3, up=True)
    net.bridge("bridge3")
    there = files(net)
    named = reachable() | {f"virtN/stats/{name}": False for name in v.stats}
    net.destroy("bridge3")
    assert there.keys() - named.keys() == set()
    assert named.keys() - there.keys() == set()
    others = {*METHODS[virtfs.Virt], *METHODS[virtfs.Mount], "ctl"}  # streams, and files with a method that writes
    settable = {path for path, writable in there.items() if writable and path.split("/")[-1] not in others}
    assert settable == {path for path, setting in named.items() if setting}


def test_importing_the_package_imports_nothing_else() -> None:
    """The server and the commands import it too, and must not wait for the API."""
    script = "import sys; before = {*sys.modules}; import virtfs; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "virtfs\n"
    script = "import sys, virtfs; virtfs.Mount; print({m.split('.')[1] for m in sys.modules if 'virtfs.' in m})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout in ("{'client', 'core'}\n", "{'core', 'client'}\n")
