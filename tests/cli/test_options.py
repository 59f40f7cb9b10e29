"""What may stand after -o."""

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
        Limits(virts=7, queue=8, backlog=9), log="/x/y", debug=True
    )


@pytest.mark.parametrize(
    "text",
    ["", "defaults", "rw,noauto,nofail,_netdev,user", "x-systemd.automount,comment=a b", "noexec,nosuid,nodev,noatime"],
)
def test_options_for_others_are_passed_over(text: str) -> None:
    assert parse(text) == MountOptions()


@pytest.mark.parametrize(
    ("text", "number", "word"),
    [
        ("ro", errno.EINVAL, "ro"),
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


@given(st.lists(st.sampled_from(["max_virts=", "7", "log=", "defaults", ",", "=", "é", " ", "\0"])).map("".join))
def test_any_text_gives_options_or_a_refusal(text: str) -> None:
    with contextlib.suppress(VirtError):
        assert parse(text).limits.virts > 0
