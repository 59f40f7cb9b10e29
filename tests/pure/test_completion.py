"""Candidates for the next word of a line of ctl, and of a command line."""

import pytest

from virtfs.cli import completion
from virtfs.cli.completion_line import Names, of_line
from virtfs.cli.main import main
from virtfs.core.impairment_text import WORDS
from virtfs.core.verbs import BRIDGE, FORMS, VERBS, VIRT, Noun
from virtfs.fuse.mounttable import Mounted

NAMES = Names(
    virts={"virt0": "10.0.0.1/24", "virt3": "", "virt4": "", "virt5": ""},
    members={"bridge0": ["virt3"], "bridge1": []},
    addresses={"virt3": ["10.0.3.1/24", "fd00::1/64"]},
    cables=[("virt3", "virt4")],
    interfaces=["eth0", "virt4"],
    bridges=["bridge0", "docker0"],
    namespaces=["far"],
    users=["nobody", "root"],
    groups=["nogroup"],
)


def after(line: str) -> list[str]:
    return [word for word, _ in of_line(line.split(), NAMES)]


def verbs(noun: Noun) -> list[str]:
    return [verb.name for verb in VERBS if verb.noun == noun]


def test_first_words() -> None:
    kinds = list(dict.fromkeys(form.kind for form in FORMS if form.kind != "change"))
    assert sorted(after("")) == sorted([*kinds, *NAMES.virts, *NAMES.members])
    assert after("check") == after("")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("create", ["virt1", "bridge2", *verbs(VIRT)]),
        ("create 3", verbs(VIRT)),
        ("create up", verbs(VIRT)),
        ("create bridge7", verbs(BRIDGE)),
        ("ensure", ["virt0", "virt3", "virt4", "virt5", "bridge0", "bridge1"]),
        ("destroy", ["virt0", "virt3", "virt4", "virt5", "bridge0", "bridge1", "all"]),
        ("destroy 3", []),
        ("virt3", verbs(VIRT)),
        ("virt3 mtu", []),
        ("virt3 mtu 1400", verbs(VIRT)),
        ("virt3 nonsense up", verbs(VIRT)),
        ("virt3 carrier", ["always", "open", "off"]),
        ("check virt3 up exclusive", ["read", "both", "none"]),
        ("virt3 owner", ["nobody", "root"]),
        ("virt3 group", ["nogroup"]),
        ("virt3 netns", ["far"]),
        ("virt3 bridge", ["bridge0", "docker0"]),
        ("virt3 -inet", ["10.0.3.1/24"]),
        ("virt3 -inet6", ["fd00::1/64"]),
        ("virt3 description a note", []),
        ("virt3 impair", [*WORDS, "in", "out", *verbs(VIRT)]),
        ("virt3 impair in delay 20ms", [*WORDS, "in", "out", *verbs(VIRT)]),
        ("virt3 impair loss 1% mtu", []),
        ("virt3 -impair", ["in", "out", *verbs(VIRT)]),
        ("virt3 -impair in", verbs(VIRT)),
        ("virt3 -impair in owner", ["nobody", "root"]),
        ("bridge0 add", ["eth0", "virt4"]),
        ("bridge0 add eth0", ["adopt", *verbs(BRIDGE)]),
        ("bridge0 delete", ["virt3"]),
        ("bridge0 static virt3", []),
        ("cable", ["virt0", "virt5"]),
        ("cable virt0", ["virt5"]),
        ("cable 5", ["virt0"]),
        ("cable 3 4 delay", [*WORDS, "in", "out"]),
        ("uncable", ["virt3", "virt4"]),
        ("uncable virt4", ["virt3"]),
        ("uncable 4", ["virt3"]),
        ("uncable virt3 virt4", []),
        ("mark text", []),
        ("retry", []),
        ("nonsense", verbs(VIRT)),
    ],
)
def test_the_next_word(line: str, words: list[str]) -> None:
    assert sorted(after(line)) == sorted(words)


@pytest.mark.parametrize(
    ("words", "shell", "found"),
    [
        (
            [],
            "none",
            {"mount", "umount", "shell", "exec", "ls", "top", "ctl", "extcap", "help", "-h", "--help", "--version"},
        ),
        (["m"], "none", {"mount"}),
        (["help", "m"], "none", {"mount"}),
        (["nonsense", ""], "none", set()),
        (["ls", "-"], "none", {"-h", "--help", "-d", "--json", "--svg"}),
        (["ls", "--svg", ""], "files", set()),
        (["ls", ""], "directories", {"/mnt/virt"}),
        (["top", "-i", ""], "none", set()),
        (["mount", "x"], "directories", set()),
        (["umount", "/mnt/v"], "directories", {"/mnt/virt"}),
        (["ls", "-d", ""], "directories", {"/mnt/virt"}),
        (["mount", "-f", "-o", "ro,max_m"], "none", {"ro,max_memory="}),
        (["mount", "-o", "debug,deb"], "none", set()),
        (["mount", "-o", "O"], "none", set()),
        (["mount", "-o", "max_u"], "none", {"max_user_memory="}),
        (["mount", "-o", "x", "-"], "none", {"-h", "--help", "-f", "-o"}),
        (["shell", "--", "ca"], "command 2", set()),
        (["shell", "--n"], "none", {"--net"}),
        (["shell", "--net", "ca"], "command 2", set()),
        (["shell", "--join", "-d", "/x", "ca"], "command 4", set()),
        (["extcap", "--in"], "none", {"--install"}),
        (["shell", "cat", "x"], "command 1", set()),
        (["exec", "--fd", "4", ""], "directories", {"0", "3", "4", "5"}),
        (["exec", "3", "--tun", "--", "ca"], "command 4", set()),
        (["ctl", "-d", "/virt3", "car"], "none", {"carrier"}),
        (["ctl", "-d", "/", "check", "-"], "none", set()),
        (["ctl", "-d", "/", "he"], "none", {"help"}),
        (["ctl", "-d", "/", "up", "he"], "none", set()),
    ],
)
def test_the_next_word_of_a_command(
    words: list[str], shell: str, found: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "names_of", lambda directory: NAMES)
    monkeypatch.setattr(completion, "visible", lambda: [Mounted(1, 0, "0:9", "/mnt/virt", "fuse.virtfs", "virtfs", ())])
    monkeypatch.setenv("VIRTFS", "/")
    assert main(["__complete", *words]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert (first, {line.partition("\t")[0] for line in lines}) == (shell, found)
