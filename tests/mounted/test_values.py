"""Conventions of the tree: one value per file, writes without effect, refused values."""

import errno
import os
from pathlib import Path

import pytest
from harness.places import DIR
from harness.process import fails
from harness.serving import Mount, Virt

VALUES = [
    ("mtu", "1500", "1400"),
    ("up", "1", "0"),
    ("address", None, "02:00:00:00:00:21"),
    ("queue", "256", "17"),
    ("backlog", "0", "5"),
    ("strict", "0", "1"),
    ("exclusive", "read", "both"),
    ("description", "", "the # third one"),
    ("tap/address", None, "02:00:00:00:00:22"),
]
NAMES = [name for name, _, _ in VALUES]


@pytest.mark.parametrize(("name", "first", "other"), VALUES, ids=NAMES)
def test_what_is_written_is_read(virt: Virt, name: str, first: str | None, other: str) -> None:
    before = virt.read(name)
    assert first is None or before == first
    raw = virt.mount.root.call(Path.read_bytes, Path(DIR, virt.name, name))
    assert raw == f"{before}\n".encode(), "one line, ended by a newline"
    virt.write(name, f"{other}\n")
    assert virt.read(name) == other
    virt.write(name, before or "\n")  # also without a newline
    assert virt.read(name) == before
    virt.write(name, f" \t{other}  \n")
    assert virt.read(name) == other


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_can_be_written_back(virt: Virt, name: str) -> None:
    before = virt.read("ctl")
    virt.mount.sh(f'v=$(cat {virt.name}/{name}); echo "$v" >{virt.name}/{name}')
    assert virt.read("ctl") == before


REFUSED = [
    ("mtu", "", errno.EINVAL),
    ("mtu", "15 00", errno.EINVAL),
    ("mtu", "1500x", errno.EINVAL),
    ("mtu", "67", errno.ERANGE),
    ("mtu", "65522", errno.ERANGE),
    ("mtu", "99999999999999999999", errno.ERANGE),
    ("mtu", "1400\n1300", errno.EINVAL),
    ("up", "2", errno.EINVAL),
    ("up", "yes", errno.EINVAL),
    ("up", "", errno.EINVAL),
    ("address", "02:00:00:00:00", errno.EINVAL),
    ("address", "03:00:00:00:00:01", errno.EINVAL),
    ("queue", "1x", errno.EINVAL),
    ("queue", "0", errno.ERANGE),
    ("strict", "on", errno.EINVAL),
    ("exclusive", "all", errno.EINVAL),
    ("description", "x" * 257, errno.EINVAL),
    ("mtu", "1" * 4000, None),
]


@pytest.mark.parametrize(("name", "text", "number"), REFUSED, ids=[f"{n}-{t[:12]}" for n, t, _ in REFUSED])
def test_a_refused_value_changes_nothing(virt: Virt, name: str, text: str, number: int | None) -> None:
    """write(2) itself fails, and last_error says why."""
    before = virt.read("ctl")
    file = virt.mount.root.open(f"{virt.name}/{name}", os.O_WRONLY)
    if number is None:
        with pytest.raises(OSError, match=r"\[Errno"):
            file.write(f"{text}\n")
    else:
        with fails(number):
            file.write(f"{text}\n")
    assert virt.read("ctl") == before
    why = virt.mount.read("last_error")
    assert f"{virt.name}/{name}" in why
    assert text.partition("\n")[0][:20] in why
    file.close()


def test_a_value_holds_when_write_returns(virt: Virt) -> None:
    """It does not wait for close(2): one descriptor can set several values."""
    file = virt.mount.root.open(f"{virt.name}/mtu", os.O_WRONLY)
    for mtu in ("1400", "9000", "68"):
        file.write(f"{mtu}\n")
        assert f"mtu {mtu} " in virt.mount.ip(f"link show {virt.tap}")


def test_both_redirections(virt: Virt) -> None:
    virt.mount.sh(f"echo 1400 >{virt.name}/mtu; test $(cat {virt.name}/mtu) = 1400")
    virt.mount.sh(f"echo 1300 >>{virt.name}/mtu; test $(cat {virt.name}/mtu) = 1300")
    virt.mount.sh(f": >{virt.name}/mtu; : >{virt.name}/frame; : >ctl; truncate -s 0 {virt.name}/mtu")
    assert virt.read("mtu") == "1300"
    assert virt.count("tx_frames") == virt.count("tx_dropped") == 0


def test_a_snapshot_is_taken_at_offset_0(virt: Virt) -> None:
    file = virt.mount.process().open(f"{virt.name}/mtu", os.O_RDONLY)
    assert file.read(2) == b"15"
    virt.set("mtu 9000")
    assert file.read(9) == b"00\n"
    assert file.read() == b""
    assert file.call(os.pread, 100, 0) == b"9000\n"
    assert file.call(os.pread, 100, 2) == b"00\n"


def test_dd_byte_by_byte(virt: Virt) -> None:
    assert virt.mount.sh(
        f"dd if={virt.name}/ctl bs=1 status=none; dd if=help bs=7 status=none | cmp - help"
    ).startswith("link ")


def test_text_files_have_their_true_size(virt: Virt) -> None:
    for name in ("ctl", "help", f"{virt.name}/mtu", f"{virt.name}/stats/rx_frames"):
        assert virt.mount.root.call(os.stat, f"{DIR}/{name}").st_size == len(virt.mount.read(name)) + 1


def test_df_and_ls(virt: Virt) -> None:
    assert "virtfs" in virt.mount.sh("df .")
    virt.mount.sh("df -i .; df >/dev/null; stat -f .")
    listing = virt.mount.sh("ls -lR")
    for name in ("ctl", f"{virt.tap} -> {virt.name}/frame", "rx_dropped", "carrier", "exclusive", "last_error"):
        assert name in listing
    virt.mount.sh("find . -ls; ls -la; du -s .; find . -path '*/stats/*' -exec cat {} + >/dev/null")


def test_cat_all_text_of_a_virt(virt: Virt) -> None:
    """As with sysfs, `grep -r .` prints all values of an interface."""
    shown = virt.mount.sh(f"grep -r . {virt.name}/stats {virt.name}/tap {virt.name}/mtu")
    assert f"{virt.name}/mtu:1500" in shown
    assert f"{virt.name}/tap/name:{virt.tap}" in shown


def test_modes(virt: Virt) -> None:
    def mode(name: str) -> str:
        return virt.mount.sh(f"stat -c %A {name}").strip()

    for name in ("ctl", f"{virt.name}/ctl", f"{virt.name}/mtu", f"{virt.name}/strict"):
        assert mode(name) == "-rw-r--r--"
    for name in ("help", "last_error", "version", f"{virt.name}/next", f"{virt.name}/stats/tx_frames"):
        assert mode(name) == "-r--r--r--"
    assert mode(f"{virt.name}/frame") == "-rw-------"
    assert mode(virt.name) == mode(".") == "drwxr-xr-x"


DENIED = [
    "mkdir {v}/new",
    "mkdir new",
    "rmdir {v}",
    "rmdir {v}/stats",
    "rm {v}/mtu",
    "rm -f {v}/frame",
    "rm {t}",
    "mv {v} other",
    "mv {v}/mtu {v}/mtu2",
    "mv {t} other",
    "ln {v}/mtu {v}/link",
    "ln -s {v} other",
    "mknod node c 1 3",
    "mkfifo fifo",
    "touch new",
    "echo >new",
    "cp help new",
    "chmod 600 {v}/mtu",
    "chmod 600 ctl",
    "chmod 700 {v}",
    "chown nobody ctl",
]


def test_only_ctl_changes_the_tree(virt: Virt) -> None:
    tree = "ls -lR --ignore=last_error"  # last_error changes, and so does its size
    before = virt.mount.sh(tree)
    for script in DENIED:
        complaint = virt.mount.refused("export LC_ALL=C; " + script.format(v=virt.name, t=virt.tap))
        assert "Operation not permitted" in complaint, script
        assert virt.mount.sh(tree) == before, script


def test_root_chmods_and_chowns(virt: Virt) -> None:
    virt.mount.sh(f"chmod 660 {virt.name}/frame; chown nobody:4007 {virt.name}/mtu")
    shown = virt.mount.sh(f"cd {virt.name} && stat -c '%a %U %g' frame mtu ctl next stats/rx_frames")
    assert shown.split("\n")[:-1] == [f"{mode} nobody 4007" for mode in (660, 664, 664, 444, 444)]
    assert "owner nobody group 4007" in virt.read("ctl")
    assert "mode" not in virt.read("ctl"), "0660 is the default with a group"
    virt.mount.sh(f"chmod 640 {virt.name}/frame")
    assert "owner nobody group 4007 mode 0640" in virt.read("ctl")


def test_a_destroyed_name_is_gone_at_once(virt: Virt, mount: Mount) -> None:
    text = mount.process().open(f"{virt.name}/mtu")
    directory = mount.process().open(virt.name, os.O_RDONLY | os.O_DIRECTORY)
    mount.ctl(f"destroy {virt.unit}")
    for name in (virt.name, virt.tap, f"{virt.name}/frame"):
        with fails(errno.ENOENT):
            mount.root.call(os.stat, f"{DIR}/{name}")
    with fails(errno.ENXIO):
        text.write("1400\n")
    directory.close()


def test_touching_means_nothing(virt: Virt) -> None:
    virt.mount.sh(f"touch ctl {virt.name}/mtu {virt.name}/frame; sync -f . || true")
    assert virt.read("mtu") == "1500"


def test_next_and_stats_only_tell(virt: Virt) -> None:
    for name in ("next", "stats/rx_frames", "tap/name", "tap/carrier"):
        with pytest.raises(PermissionError):
            virt.mount.process(65534).open(f"{virt.name}/{name}", os.O_WRONLY)
        with pytest.raises(OSError, match=r"\[Errno"):
            virt.write(name, "5\n")
