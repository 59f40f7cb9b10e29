"""The man pages: they are valid, and name exactly the files, verbs and limits that exist."""

import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from harness import tools

from virtfs.cli.options import parse
from virtfs.core.errors import VirtError
from virtfs.core.events import EVENTS
from virtfs.core.limits import Limits
from virtfs.core.quantities import format_size
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT

from .markdown import ROOT, section
from .tour import touring

PAGES = sorted((ROOT / "man").iterdir())
FILES = (ROOT / "man/virtfs.5").read_text()

_MACROS = re.compile(r"\b(?:Cm|Ar|Li|Oo|Oc|Op|Ns)\b ?")

# Prints every file of a mount with its permission bits and how root can open it: r, w or rw. If neither reading nor
# writing alone works, the script tries both at once. Numbers of interfaces and bridges become N. rx and fd are left
# out, because they link out of the mount: rx to a FIFO, whose open for reading waits for a writer, and fd to a socket,
# which cannot be opened.
_ALL = r"""
echo create 3 >/mnt/virt/ctl
echo create bridge3 >/mnt/virt/ctl
cd /mnt/virt
for file in $(find . ! -type d ! -name rx ! -name fd -printf '%P\n'); do
    read=; (: <$file) 2>/dev/null && read=r
    write=; (: >>$file) 2>/dev/null && write=w
    [ "$read$write" ] || { (: <>$file) 2>/dev/null && read=rw; }
    echo $file $(stat -L -c %a $file) $read$write | sed -E 's/(virt|tap|bridge)3/\1N/g'
done
cd /
echo destroy bridge3 >/mnt/virt/ctl
echo destroy 3 >/mnt/virt/ctl
"""


def items(text: str, macro: str) -> list[str]:
    """Return the rest of each line that begins with `.It MACRO`."""
    return re.findall(rf"^\.It {macro} (.*)$", text, re.MULTILINE)


def part(heading: str) -> str:
    """Return a section or subsection of virtfs(5), up to the next section or subsection."""
    _, found, rest = FILES.partition(f" {heading}\n")
    assert found, f"no section {heading}"
    return re.split(r"^\.S[hs] ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rights(mode: int, opens: str) -> str:
    """Return the access that a file allows: "r", "w" or "rw".

    opens: the ways in which root can open the file; each of the letters r and w in it counts
    """
    return "".join(way for way in opens if mode & {"r": 0o400, "w": 0o200}[way])


def verbs_under(*headings: str) -> list[str]:
    """Return the sorted items of these sections: verbs with their arguments."""
    return sorted(_MACROS.sub("", item).strip() for heading in headings for item in items(part(heading), "Cm"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_groff_man_and_mandoc_have_nothing_to_say(page: Path) -> None:
    """mandoc also looks for the manuals that a page refers to, but which of them are installed differs."""
    assert tools.everything("groff", "-ww", "-mandoc", "-Tutf8", "-z", page) == ""
    assert tools.everything("man", "--warnings", "-l", "-Z", "-Tutf8", page).startswith("x T utf8\n")
    said = tools.everything("mandoc", "-T", "lint", page).splitlines()
    assert [line for line in said if "referenced manual not found" not in line and "mandoc.db lacks" not in line] == []


def test_references_to_these_pages_are_right() -> None:
    ours = {page.name for page in PAGES}
    for page in PAGES:
        referred = {".".join(one) for one in re.findall(r"^\.Xr (\S+) ([0-9])", page.read_text(), re.MULTILINE)}
        assert {name for name in referred if "virtfs" in name} <= ours


def test_every_file_of_the_tree_has_its_item_and_no_other_has() -> None:
    with touring() as shell:
        found = [line.split() for line in shell.run(_ALL, 0).splitlines()]
    there = {path: rights(int(mode, 8), opens) for path, mode, opens in found} | {"virtN/rx": "r", "virtN/fd": "rw"}
    documented = dict(item.split(" Pq ") for item in items(FILES, "Pa"))
    assert documented == there


def test_every_verb_has_its_item_with_its_arguments_and_no_other_has() -> None:
    of_virt = sorted(verb.usage for verb in VERBS if verb.noun == VIRT)
    assert verbs_under("Verbs", "Verbs for root alone") == of_virt
    assert verbs_under("Verbs of a bridge") == sorted(verb.usage for verb in VERBS if verb.noun == BRIDGE)


def test_the_verbs_for_root_alone_are_listed_as_such() -> None:
    assert verbs_under("Verbs for root alone") == sorted(verb.usage for verb in VERBS if verb.root_only)


def test_every_command_of_ctl_has_its_item() -> None:
    told = {item.split()[0] for item in verbs_under("CTL")}
    assert told == {form.kind for form in FORMS if form.kind != "change"}


def test_the_page_of_verbs_names_every_verb() -> None:
    words = set(re.findall(r"[^\s`,;|]+", section((ROOT / "doc/files.md").read_text(), "Commands and verbs")))
    assert {verb.name for verb in VERBS} <= words


def option_of(limit: str) -> str:
    """Return the mount option that sets a limit."""
    for option in (f"max_{limit}", limit):
        for text, number in (("7", 7), ("7M", 7 << 20)):  # 7 bytes are too few for some
            with suppress(VirtError):
                if getattr(parse(f"{option}={text}").limits, limit) == number:
                    return option
    raise AssertionError(f"no mount option sets {limit}")


def test_what_a_mount_allows_is_in_the_page_of_the_command() -> None:
    page = (ROOT / "man/virtfs.1").read_text()
    for limit in fields(Limits):
        _, found, rest = page.partition(f".It Cm {option_of(limit.name)} Ns")
        assert found, limit.name
        told = rest.partition("\n.It")[0]
        default: int = getattr(Limits(), limit.name)
        assert f"({default})" in told or f"({format_size(default)})" in told, limit.name


def test_a_mounts_help_has_every_option_of_the_page() -> None:
    page = (ROOT / "man/virtfs.1").read_text()
    done = subprocess.run([sys.executable, "-m", "virtfs", "mount", "--help"], capture_output=True, text=True, cwd=ROOT)
    helped = set(re.findall(r"^  (\w+)(?==| {2})", done.stdout.partition("options, after -o")[2], re.MULTILINE))
    listed = set(
        re.findall(r"^\.It Cm (\w+)(?: Ns = .*)?$", page.partition(".It Fl o")[2].partition(".El")[0], re.MULTILINE)
    )
    assert helped == listed != set()


def test_every_event_with_its_keys() -> None:
    told = {
        name: tuple(keys.split()) for name, _, keys in (item.partition(" Ar ") for item in items(part("EVENTS"), "Cm"))
    }
    assert told == {event: meaning.keys for event, meaning in EVENTS.items()}
