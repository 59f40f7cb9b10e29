"""Mount options, as given after -o."""

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.cli.options import MountOptions, parse
from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits


def test_own_options() -> None:
    assert parse("max_virts=7,log=/x/y,max_queue=8,max_backlog=9,debug") == MountOptions(
        Limits(virts=7, queue=8, backlog=9),
        log="/x/y",
        debug=True,
        given=frozenset(("max_virts", "log", "max_queue", "max_backlog", "debug")),
    )
    assert parse("").text() == parse("max_virts=4096,max_history=64M").text() == ""


OWN = st.one_of(
    st.tuples(st.sampled_from(["max_virts", "max_queue", "max_backlog"]), st.integers(1, 2**31 - 1)),
    st.tuples(st.just("max_history"), st.sampled_from(["1", "1000", "3K", "64M", "2G"])),
    st.tuples(st.just("capture"), st.sampled_from(["65536", "100000", "64M", "2G"])),
    st.tuples(st.sampled_from(["log", "state"]), st.sampled_from(["/x", "/a b/c", "/ü"])),
)


@given(st.lists(OWN), st.booleans())
def test_a_mount_tells_its_options_as_they_are_read(said: list[tuple[str, object]], debug: bool) -> None:
    """Parsing the text of the options returns the same options; `mount -o remount` compares them."""
    options = parse(",".join([f"{name}={value}" for name, value in said] + ["debug"] * debug))
    assert parse(options.text()).own() == options.own()


@pytest.mark.parametrize(
    ("word", "least"),
    [
        ("max_memory=1048575", "1M"),
        ("max_memory=0", "1M"),
        ("max_user_memory=511K", "512K"),
        ("capture=0", "64K"),
        ("capture=65535", "64K"),
    ],
)
def test_a_limit_on_memory_that_is_too_small(word: str, least: str) -> None:
    with pytest.raises(VirtError) as refused:
        parse(word)
    assert refused.value.errno == errno.ERANGE
    assert refused.value.strerror == f'mount option "{word}" is too small: the least is {least}'
    assert parse(f"{word.partition('=')[0]}={least}").text() == f"{word.partition('=')[0]}={least}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "defaults",
        "noauto,nofail,_netdev,user",
        "users,owner,group,nouser,user=alice",
        "x-systemd.automount,x-systemd.requires=a.service,comment=a b,X-mount.mkdir",
        "nosuid,nodev,suid,dev,relatime,nodiratime,lazytime,silent",
        "default_permissions,nonempty,subtype=virtfs",
    ],
)
def test_options_for_others_are_passed_over(text: str) -> None:
    assert parse(text) == MountOptions()


def test_flags_of_the_mount_and_its_name() -> None:
    assert dict(parse("ro,noexec,noatime,allow_other").flags) == dict.fromkeys(
        ("ro", "noexec", "noatime", "allow_other"), True
    )
    assert parse("ro,rw,exec").flags == (("ro", False), ("noexec", False))
    assert parse("fsname=lab,remount") == MountOptions(source="lab", remount=True)


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("uid=1000", "owner USER"),
        ("gid=1000", "group GROUP"),
        ("umask=022", "mode OCTAL"),
        ("context=system_u:object_r:tmp_t:s0", "SELinux"),
        ("subtype=other", "fuse.virtfs"),
        ("allow_root", "allow_other"),
        ("auto_unmount", "leave it out"),
        ("max_read=4096", "one read returns one frame"),
        ("user_id=0", "fusermount3"),
        ("bind", "mount(8)"),
        ("rshared", "mount(8)"),
        ("nosymfollow", "symbolic links"),
    ],
)
def test_what_other_file_systems_have_is_refused_with_what_to_say_instead(word: str, instead: str) -> None:
    with pytest.raises(VirtError) as caught:
        parse(f"rw,{word}")
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror.startswith(f'mount option "{word}": ')
    assert instead in caught.value.strerror
    assert parse(word, sloppy=True) == MountOptions()


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("max_virt=16", ', perhaps max_virts: "virtfs mount --help" lists all'),
        ("stat=/x", ', perhaps state: "virtfs mount --help" lists all'),
        ("colour", ': "virtfs mount --help" lists all'),
    ],
)
def test_an_unknown_option_gets_the_nearest_one(word: str, advice: str) -> None:
    with pytest.raises(VirtError) as caught:
        parse(word)
    assert caught.value.strerror == f'unknown mount option "{word}"{advice}'


def test_a_comma_in_the_name_of_a_file_is_found() -> None:
    for name in ("state", "log"):
        with pytest.raises(VirtError) as caught:
            parse(f"ro,{name}=/var/lib/a,b")
        assert caught.value.strerror == (
            'unknown mount option "b": "virtfs mount --help" lists all; '
            f'the name of a file cannot contain a comma, which ends "{name}=/var/lib/a": use a symbolic link'
        )
    with pytest.raises(VirtError) as caught:
        parse("state=/var/lib/a,max_virt=2")
    assert caught.value.strerror == (
        'unknown mount option "max_virt=2", perhaps max_virts: "virtfs mount --help" lists all'
    )


@pytest.mark.parametrize(
    ("text", "number", "word"),
    [
        ("fsname=", errno.EINVAL, "fsname="),
        ("defaults,foo=1", errno.EINVAL, "foo=1"),
        ("max_virts", errno.EINVAL, "max_virts"),
        ("max_virts=-1", errno.EINVAL, "max_virts=-1"),
        ("max_virts=0", errno.ERANGE, "max_virts=0"),
        ("max_queue=99999999999", errno.ERANGE, "max_queue=99999999999"),
        ("log=", errno.EINVAL, "log="),
        ("debug=1", errno.EINVAL, "debug=1"),
    ],
)
def test_what_is_wrong_is_quoted(text: str, number: int, word: str) -> None:
    with pytest.raises(VirtError) as caught:
        parse(text)
    assert caught.value.errno == number
    assert f'"{word}"' in caught.value.strerror


def test_sloppy_passes_over_what_is_unknown() -> None:
    assert parse("foo,max_virts=2", sloppy=True).limits.virts == 2


@pytest.mark.parametrize("word", ["state=lab.state", "log=./lab.log"])
def test_mount8_needs_absolute_names(word: str) -> None:
    """The working directory of mount(8) at boot is not that of the writer of fstab."""
    with pytest.raises(VirtError) as refused:
        parse(f"debug,{word}", relative=False)
    assert refused.value.errno == errno.EINVAL
    assert refused.value.strerror.startswith(f'mount option "{word}": give the absolute path, ')
    assert parse("state=/lab.state", relative=False).state == "/lab.state"


@given(st.lists(st.sampled_from(["max_virts=", "7", "log=", "defaults", ",", "=", "é", " ", "\0"])).map("".join))
def test_any_text_gives_options_or_a_refusal(text: str) -> None:
    with contextlib.suppress(VirtError):
        assert parse(text).limits.virts > 0
