"""Names that other programs choose: escape sequences, newlines and bytes that are not UTF-8 never reach a reader."""

import errno
import json
import os
import subprocess
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import pytest
from harness.places import DIR
from harness.process import fails
from harness.serving import Mount, Virt
from harness.waiting import until

# Each can be the end of an interface's name: up to 14 bytes, without blank, "/" and ":" (net/core/dev.c
# dev_valid_name).
ODD, STRAY = "\x1b[2J\u202e\u2028".encode(), b"\xff\xfe"
NAMES = {ODD: r"\x1b[2J\u202e\u2028", STRAY: r"\xff\xfe"}


def call_itself(name: bytes) -> None:
    """Change the name of the calling thread's process (prctl(2), PR_SET_NAME)."""
    Path("/proc/self/comm").write_bytes(name)


def ip(*words: str | bytes) -> None:
    """Run ip(8). AssertionError: it failed."""
    done = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr


def contents() -> dict[str, bytes]:
    """Return every file of the mount that can be read without waiting, by path."""
    found = {}
    for folder, _folders, files in os.walk(DIR):
        for name in files:
            path = f"{folder}/{name}"
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue  # inject cannot be read, clone not without being written
            try:
                found[path.removeprefix(f"{DIR}/")] = os.read(fd, 1 << 20)
            except OSError:
                pass  # a stream without data, or of an interface that is down
            finally:
                os.close(fd)
    return found


BINARY = {"pcap", "history", "frame"}


def unprintable(text: str) -> list[str]:
    """Return the characters that a text file may not contain."""
    return [char for char in text if char not in "\n\t" and unicodedata.category(char)[0] in "CZ" and char != " "]


def check(mount: Mount) -> dict[str, str]:
    """Assert that every text of the mount is UTF-8 and printable, and return the texts by path."""
    texts = {
        path: data.decode()
        for path, data in mount.root.call(contents).items()
        if path.rpartition("/")[2] not in BINARY and not path.startswith("tap")
    }
    assert len(texts) > 40
    assert {path: found for path, text in texts.items() if (found := unprintable(text))} == {}
    json.loads(texts["status.json"])
    return texts


def comm(mount: Mount, name: bytes, file: str) -> str:
    """Return the row of clients for a program of that name."""
    agent = mount.process()
    agent.call(call_itself, name)
    opened = agent.open(file, os.O_RDONLY)
    rows = mount.read(f"{file.partition('/')[0]}/clients").splitlines()
    opened.close()
    agent.close()
    assert len(rows) == 2
    return rows[1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\nroot 1 x", r"a\nroot\x201\x20x"),
        (b"two words", r"two\x20words"),
        (b"\n", r"\n"),
        (b"\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("\u202eevil".encode(), r"\u202eevil"),
        ("\U000e0041".encode(), r"\U000e0041"),
        (b"back\\n", r"back\n"),
        (b"back\\\n", r"back\\\n"),
    ],
)
def test_a_process_cannot_forge_a_row(virt: Virt, name: bytes, shown: str) -> None:
    row = comm(virt.mount, name, f"{virt.name}/wait/down").split(" ")
    assert [word for word in row if word][1:] == [shown, "wait/down", "0", "0", "0", "0"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_interfaces(virt: Virt, name: bytes) -> None:
    """A renamed tap, in a bridge of such a name, with a member of such a name."""
    mount = virt.mount
    mount.ctl(f"create bridge{virt.unit} up")
    bridge = f"bridge/bridge{virt.unit}"
    try:
        mount.root.call(ip, "link", "add", "name", b"br" + name, "type", "bridge")
        mount.root.call(ip, "link", "add", "name", b"m" + name, "type", "veth", "peer", "name", b"p" + name)
        mount.root.call(ip, "link", "set", b"m" + name, "master", f"bridge{virt.unit}")
        mount.root.call(ip, "link", "set", virt.tap, "name", b"t" + name)
        mount.root.call(ip, "link", "set", b"t" + name, "master", b"br" + name)
        until(lambda: virt.read("tap/name") == f"t{NAMES[name]}", "the new name")
        until(lambda: virt.read("tap/bridge") == f"br{NAMES[name]}", "the new bridge")
        texts = check(mount)
        assert texts[f"{bridge}/members"] == f"m{NAMES[name]}\n"
        assert f"# bridge{virt.unit} add m{NAMES[name]}: a line cannot contain this name\n" in texts["ctl"]
        assert f"# {virt.name} bridge br{NAMES[name]}: a line cannot contain this name\n" in texts["ctl"]
        mount.ctl(texts["ctl"].replace("create ", "ensure "))  # each line that it has can be written back
        refused = fails(errno.EINVAL) if name is STRAY else nullcontext()
        with refused:
            virt.mount.root.open(f"{virt.name}/pcap", os.O_RDONLY).close()
    finally:
        mount.root.call(ip, "link", "del", b"m" + name)
        mount.root.call(ip, "link", "set", b"t" + name, "name", virt.tap)
        mount.root.call(ip, "link", "del", b"br" + name)
        mount.ctl(f"destroy bridge{virt.unit}")


def test_name_of_a_namespace(virt: Virt) -> None:
    """ip-netns(8) accepts any file name. A name that a line of ctl cannot contain is shown in a comment."""
    mount, name = virt.mount, b"far\n\x1b[2J\xff"
    mount.root.call(ip, "netns", "add", name)
    try:
        mount.root.call(ip, "link", "set", virt.tap, "netns", name)
        until(lambda: virt.read("tap/netns") == r"far\n\x1b[2J\xff", "the name of the namespace")
        assert f"# {virt.name} netns far\\n\\x1b[2J\\xff: a line cannot contain this name\n" in check(mount)["ctl"]
    finally:
        mount.ctl(f"destroy {virt.name}")
        mount.root.call(ip, "netns", "delete", name)
