"""Try the table on a mount as root, as an interface's owner, as a member of its group and as another user."""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.places import DIR
from harness.process import Process
from harness.serving import Mount, Virt, Virts

from . import programs, table

PAGE = Path(__file__).parents[2] / "man/virtfs.5"
OWNER, GROUP = 4001, 4002
USERS = {"root": 0, "owner": OWNER, "group": GROUP, "others": 4003}  # the gid of each equals the uid
FLAGS = (os.O_RDONLY, os.O_WRONLY)
MODES = [0o600, 0o660, 0o640, 0o606, 0o444, 0o222, 0o060, 0o000]


@pytest.fixture
def users(mount: Mount) -> dict[str, Process]:
    """Return a program run by each user."""
    return {who: mount.process(uid) for who, uid in USERS.items()}


def opens(user: Process, path: str, flags: int) -> int:
    """Return 0, or the errno of an open(2)."""
    return user.call(programs.opens, path, flags)


def answers(row: table.Row, who: str, mode: int) -> set[int]:
    """Return the permitted results of an open.

    Root can open a read-only text for writing. The write then fails with EACCES.
    """
    if row is table.NEVER and who == "root":
        return {0, errno.EACCES}
    return {0} if row.allows(who, mode) else {errno.EACCES}


def files(mount: Mount, directory: str) -> list[str]:
    """Return the paths of the files below a directory, without symbolic links."""
    return mount.sh(f"cd {directory} && find . -type f -printf '%P\\n'").split()


@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_files_of_an_interface(virt: Virt, users: dict[str, Process], mode: int) -> None:
    virt.set(f"owner {OWNER} group {GROUP} mode {mode:o}")
    tries = [(f"{virt.name}/{name}", flags) for name in files(virt.mount, virt.name) for flags in FLAGS]
    for who, user in users.items():
        for (path, flags), got in zip(tries, user.call(programs.each_opens, tries), strict=True):
            row = table.rows_of(path.removeprefix(f"{virt.name}/"), table.VIRT_FILES)[FLAGS.index(flags)]
            assert got in answers(row, who, mode), f"{who} opens {path} of mode {mode:o} for {row.what}: {got}"


def test_files_of_the_mount(mount: Mount, users: dict[str, Process]) -> None:
    mount.ctl("create bridge0")
    for directory, expected in ((".", table.MOUNT_FILES), ("bridge/bridge0", table.BRIDGE_FILES)):
        for name in files(mount, directory):
            if directory == "." and name.startswith("bridge/"):
                continue
            for row, flags in zip(table.rows_of(name, expected), FLAGS, strict=True):
                for who, user in users.items():
                    if name != "clone" or who != "root":
                        got = opens(user, f"{directory}/{name}", flags)
                        assert got in answers(row, who, 0), f"{who} opens {name} for {row.what}: {got}"
    mount.ctl("destroy bridge0")


def test_what_only_tells_cannot_be_written_by_root_either(virt: Virt) -> None:
    told = [name for name in files(virt.mount, virt.name) if table.rows_of(name, table.VIRT_FILES)[1] is table.NEVER]
    assert {"next", "clients", "stats/rx_frames", "tap/index"} <= set(told)
    for name in told:
        complaint = virt.mount.refused(f"export LC_ALL=C; echo 1 >{virt.name}/{name}")
        assert re.search("Permission denied|Bad file descriptor", complaint), name


def said(user: Process, path: str, line: str) -> int:
    """Return 0, or the errno of opening a ctl and writing a line."""
    return user.call(programs.says, path, line)


def test_every_verb_is_in_the_table(mount: Mount) -> None:
    """help marks the same verbs as root's."""
    told = mount.read("help")
    told = told[told.index("Verbs of virtN") : told.index("Verbs of bridgeN")]
    rows = re.findall(r"^  (-?[a-z0-9]+).*?( \(root\))?$", told, re.MULTILINE)
    assert len(rows) > 25
    for name, roots in rows:
        assert bool(roots) == (table.VERB[name][1] == table.ROOTS), name


def verbs(mount: Mount) -> list[str]:
    """Return the verbs of the table that help lists."""
    told = mount.read("help")
    return [verb for verb in table.VERB if re.search(rf"^  {re.escape(verb)}[ \n]", told, re.MULTILINE)]


@pytest.fixture
def _surroundings(mount: Mount) -> Iterator[None]:
    """Create a bridge and a namespace that the lines name."""
    mount.ip("link add br9 type bridge")
    mount.ip("netns add net9")
    yield
    mount.ip("netns del net9")
    mount.ip("link del br9")


@pytest.mark.usefixtures("_surroundings")
def test_verbs(virts: Virts, mount: Mount, users: dict[str, Process]) -> None:
    """Each user writes each verb to virtN/ctl, then to the mount's ctl."""
    for verb in verbs(mount):
        line, whose = table.VERB[verb]
        for mode in (0o660, 0o600):
            virt = virts(f"up owner {OWNER} group {GROUP} mode {mode:o} {table.SETTING}")
            before = virt.read("ctl")
            for who, user in reversed(users.items()):  # root last, since its write changes the interface
                expected = 0
                if not table.ROW["use its verbs"].allows(who, mode):
                    expected = errno.EACCES
                elif not table.ROW[whose].allows(who, mode):
                    expected = errno.EPERM
                got = said(user, f"{virt.name}/ctl", line)
                assert got == expected, f"{who} writes {line} under mode {mode:o}: {got}"
                if expected:
                    assert virt.read("ctl") == before
                got = said(user, "ctl", f"{virt.name} {line}")
                if who != "root":
                    assert got == errno.EACCES
            mount.ctl(f"destroy {virt.unit}")


def test_a_forbidden_verb_forbids_its_line(virt: Virt, users: dict[str, Process]) -> None:
    virt.set(f"owner {OWNER}")
    before = virt.read("ctl")
    for line in ("mtu 1400 owner 4003", "owner 4003 mtu 1400", "mtu 1400 description x\nowner 4001"):
        assert said(users["owner"], f"{virt.name}/ctl", line) == errno.EPERM
    assert virt.read("ctl") != before, "the line before the refused one has taken effect"
    assert "mtu 1400" in virt.read("ctl")
    assert f"owner {OWNER}" in virt.read("ctl")


CALLS = [
    ("chmod frame", os.chmod, "{v}/frame", (0o640,), {"root": 0, "owner": 0}),
    ("chmod a value", os.chmod, "{v}/mtu", (0o640,), {}),
    ("chmod its ctl", os.chmod, "{v}/ctl", (0o640,), {}),
    ("chmod what only tells", os.chmod, "{v}/next", (0o444,), {}),
    ("chmod the directory", os.chmod, "{v}", (0o700,), {}),
    ("chmod root's value", os.chmod, "{v}/tap/address", (0o666,), {}),
    ("chmod ctl", os.chmod, "ctl", (0o666,), {}),
    ("chmod clone", os.chmod, "clone", (0o666,), {}),
    ("setuid", os.chmod, "{v}/frame", (0o4640,), {"root": errno.EINVAL, "owner": errno.EINVAL}),
    ("chown", os.chown, "{v}/frame", (4003, -1), {"root": 0}),
    ("chgrp", os.chown, "{v}/frame", (-1, 4003), {"root": 0}),
    ("chgrp to his own", os.chown, "{v}/frame", (-1, OWNER), {"root": 0}),
    ("chown a value", os.chown, "{v}/mtu", (4003, 4003), {"root": 0}),
    ("chown ctl", os.chown, "ctl", (4003, 4003), {}),
    ("chown clone", os.chown, "clone", (4003, 4003), {}),
    ("unlink", os.unlink, "{v}/frame", (), {}),
    ("rename", os.rename, "{v}", (f"{DIR}/other",), {}),
    ("mkdir", os.mkdir, "{v}/new", (), {}),
]


@pytest.mark.parametrize(
    ("call", "path", "arguments", "answers"), [call[1:] for call in CALLS], ids=[call[0] for call in CALLS]
)
def test_by_call(
    virts: Virts,
    users: dict[str, Process],
    call: Callable[..., object],
    path: str,
    arguments: tuple[object, ...],
    answers: dict[str, int],
) -> None:
    """Users without an errno in the row get EPERM, or EACCES if the mode of the directory is checked first."""
    virt = virts(f"owner {OWNER} group {GROUP} mode 660")
    before = virt.read("ctl"), virt.mount.sh(f"stat -c '%n %A %U %G' * {virt.name}/*")
    for who, user in reversed(users.items()):
        got = 0
        try:
            user.call(call, f"{DIR}/{path.format(v=virt.name)}", *arguments)
        except OSError as refusal:
            got = refusal.errno or -1
        directory = call in (os.unlink, os.rename, os.mkdir)
        expected = {answers[who]} if who in answers else {errno.EPERM, errno.EACCES} if directory else {errno.EPERM}
        assert got in expected, who
        if got:
            assert (virt.read("ctl"), virt.mount.sh(f"stat -c '%n %A %U %G' * {virt.name}/*")) == before, who


def test_chmod_counts_only_as_the_mode(virt: Virt) -> None:
    virt.set(f"owner {OWNER}")
    virt.mount.sh(f"chmod u=rw,g=r,o= {virt.name}/frame", uid=OWNER)
    assert "mode 0640" in virt.read("ctl")
    virt.mount.sh(f"chmod 604 {virt.tap}", uid=OWNER)
    assert "mode 0604" in virt.read("ctl"), "chmod through a symbolic link works too"
    virt.mount.sh(f"chown 4003:4003 {virt.tap}")
    assert "owner 4003 group 4003" in virt.read("ctl")


def test_a_supplementary_group_counts(virt: Virt) -> None:
    virt.set(f"owner {OWNER} group {GROUP} mode 660")
    write = f"echo mtu 1400 >{DIR}/{virt.name}/ctl; head -c 60 /dev/zero >{DIR}/{virt.name}/frame"
    for groups, allowed in ((f"7,{GROUP},9", True), ("7,9", False)):
        words = ["setpriv", "--reuid=4003", "--regid=4003", f"--groups={groups}", "sh", "-ec", write]
        done = subprocess.run(virt.mount.command(*words), capture_output=True, check=False)
        assert (done.returncode == 0) == allowed, done.stderr
    assert virt.count("tx_frames") == 1


def test_the_owner_counts_before_the_group(virt: Virt) -> None:
    """As with any file, the owner's bits apply to an owner who is also a member of the group."""
    virt.set(f"owner {OWNER} group {OWNER} mode 060")
    assert opens(virt.mount.process(OWNER), f"{virt.name}/frame", os.O_WRONLY) == errno.EACCES


def test_given_and_taken(virt: Virt, users: dict[str, Process]) -> None:
    """Open files stay usable. Each later open is checked against the current owner and mode."""
    path = f"{virt.name}/frame"
    for owner, mine, others in (("owner", 0, errno.EACCES), ("others", errno.EACCES, 0)):
        virt.set(f"owner {USERS[owner]}")
        assert opens(users["owner"], path, os.O_WRONLY) == mine
        assert opens(users["others"], path, os.O_WRONLY) == others
    virt.set("owner root group root mode 600")
    assert opens(users["others"], path, os.O_WRONLY) == errno.EACCES


def test_the_man_pages_table() -> None:
    assert tuple(table.man_rows(PAGE.read_text())) == table.ROWS


def test_the_man_pages_verbs() -> None:
    """The man page lists verbs for root alone under their own heading."""
    page = PAGE.read_text()
    assert {table.VERB[verb][1] for verb in table.man_verbs(page, "Verbs for root alone")} == {table.ROOTS}
    assert table.ROOTS not in {table.VERB[verb][1] for verb in table.man_verbs(page, "Verbs")}
