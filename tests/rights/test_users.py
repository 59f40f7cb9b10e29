"""Permissions of root, of other users and of an interface's owner."""

import errno
import os

import pytest
from harness.process import Process, fails
from harness.serving import Mount, Virt, frame

NOBODY = 65534
ALICE = 4001
BOB = 4002


def allowed(user: Process, path: str, flags: int) -> bool:
    """Return whether an open succeeds. If it fails, the errno must be EACCES."""
    try:
        user.open(path, flags).close()
    except OSError as refusal:
        if refusal.errno != errno.EACCES:
            raise
        return False
    return True


def test_another_user_is_refused(virt: Virt) -> None:
    nobody = virt.mount.process(NOBODY)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        assert not allowed(nobody, f"{virt.name}/frame", flags)
    for name in ("ctl", f"{virt.name}/ctl", f"{virt.name}/mtu", f"{virt.name}/up"):
        assert allowed(nobody, name, os.O_RDONLY)
        assert not allowed(nobody, name, os.O_WRONLY)
    for script in (f"cat {virt.name}/frame", f"echo destroy {virt.unit} >ctl", f"echo 1 >{virt.name}/up"):
        assert "Permission denied" in virt.mount.refused(f"export LC_ALL=C; {script}", uid=NOBODY)
    assert virt.mount.sh(f"cat {virt.name}/mtu", uid=NOBODY) == "1500\n"
    virt.mount.sh("ls -lR; df .", uid=NOBODY)


def test_an_owner_uses_his_interface_and_nothing_else(virt: Virt, mount: Mount) -> None:
    mount.ctl("create 1 up")
    virt.set(f"owner {ALICE}")
    alice = mount.process(ALICE)
    file = virt.open(os.O_RDWR, alice)
    virt.host_sends(frame())
    assert file.read() == frame()
    file.write(frame(61))
    assert virt.host_gets() == frame(61)
    mount.sh(f"echo 1400 >{virt.name}/mtu; echo backlog 3 strict >{virt.name}/ctl", uid=ALICE)
    assert (virt.read("mtu"), virt.read("backlog")) == ("1400", "3")
    mount.sh(f"chmod 640 {virt.name}/frame", uid=ALICE)
    for path in ("virt1/frame", "virt1/ctl", "virt1/mtu", "ctl"):
        assert not allowed(alice, path, os.O_WRONLY)
    assert not allowed(mount.process(BOB), f"{virt.name}/frame", os.O_RDONLY)


ROOTS = [
    "taplink 02:00:00:00:00:01",
    "inet 10.0.0.1/24",
    "inet6 fd00::1/64",
    "-inet 10.0.0.1",
    "-inet6 fd00::1",
    f"owner {BOB}",
    "group 7",
]


@pytest.mark.parametrize("verb", ROOTS)
def test_what_stays_roots_alone(virt: Virt, verb: str) -> None:
    virt.set(f"owner {ALICE}")
    before = virt.read("ctl")
    complaint = virt.mount.refused(f"export LC_ALL=C; echo mtu 1400 {verb} >{virt.name}/ctl", uid=ALICE)
    assert "Operation not permitted" in complaint
    assert virt.read("ctl") == before
    assert f'"{verb.split()[0]}"' in virt.mount.sh("cat last_error", uid=ALICE)


def test_an_owner_gives_nothing_away(virt: Virt) -> None:
    """Only root may chown, as in any file system, and an owner may not change files that belong to root."""
    virt.set(f"owner {ALICE}")
    for script in (f"chown {BOB} {virt.name}/frame", "chmod 666 ctl", f"echo x >{virt.name}/tap/address"):
        virt.mount.refused(script, uid=ALICE)
    assert f"owner {ALICE}" in virt.read("ctl")


def test_a_groups_members(virt: Virt) -> None:
    virt.set(f"group {BOB} mode 660")
    bob = virt.mount.process(BOB)  # whose gid equals the uid
    virt.open(os.O_RDWR, bob).write(frame())
    virt.mount.sh(f"echo 1400 >{virt.name}/mtu; echo down >{virt.name}/ctl", uid=BOB)
    assert not allowed(virt.mount.process(ALICE), f"{virt.name}/frame", os.O_WRONLY)


def test_mode_reaches_ctl_and_values(virt: Virt) -> None:
    virt.set("mode 666")
    virt.mount.sh(
        f"echo 1400 >{virt.name}/mtu; echo up >{virt.name}/ctl; head -c 60 /dev/zero >{virt.name}/frame", uid=BOB
    )
    virt.set("mode 400")
    assert virt.mount.sh(f"stat -c %a {virt.name}/frame {virt.name}/mtu").split() == ["400", "444"]


def test_rights_are_the_openers(virt: Virt) -> None:
    """An open file keeps its rights when the mode or the owner changes."""
    virt.set(f"owner {ALICE}")
    file = virt.open(os.O_RDWR, virt.mount.process(ALICE))
    ctl = virt.mount.process(ALICE).open(f"{virt.name}/ctl", os.O_WRONLY)
    virt.set("owner root mode 600")
    file.write(frame())
    assert virt.host_gets() == frame()
    ctl.write("mtu 1400\n")
    with fails(errno.EPERM):
        ctl.write("inet 10.9.9.9/24\n")


def test_last_error_is_each_users(virt: Virt) -> None:
    virt.set(f"owner {ALICE}")
    mount = virt.mount
    assert mount.sh("cat last_error", uid=BOB) == "ok\n"
    mount.refused(f"echo mtu 3 >{virt.name}/ctl", uid=ALICE)
    mount.refused("echo destroy 77 >ctl")
    assert '"mtu 3"' in mount.sh("cat last_error", uid=ALICE)
    assert "destroy 77" in mount.sh("cat last_error")
    assert mount.sh("cat last_error", uid=BOB) == "ok\n"
