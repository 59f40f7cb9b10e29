"""Each public name of the API has a docstring with an example, and the examples do what they show."""

import pytest
from harness.serving import Mount

import virtfs
from virtfs.client import events, lines, texts

from . import examples

_ELSEWHERE = {"mount"}  # run by tests/docs/test_python.py, because starting a server takes long
_ALSO = {"lines.words": lines.words, "lines.impairment": lines.impairment, "texts.text_of": texts.text_of}
THINGS = dict(examples.documented())


def test_the_names_of_the_package_are_there() -> None:
    assert {name.partition(".")[0] for name in THINGS} == {*virtfs.__all__}
    assert {"Virt.mtu", "Virt.open", "Host.addresses", "Mount.__getitem__", "Port.recv", "Virt.read"} <= {*THINGS}
    assert {"aio.stream", "aio.Stream.send", "aio.Stream.recv", "aio.Stream.__aiter__"} <= {*THINGS}
    assert {"aio.open", "aio.Port.recv", "aio.Events.__aiter__", "Tap.fileno", "Loan.close"} <= {*THINGS}
    assert dir(virtfs) == sorted({*dir(virtfs), *virtfs.__all__})
    with pytest.raises(AttributeError, match="no attribute 'wobble'"):
        virtfs.wobble  # noqa: B018


def test_each_public_name_has_a_docstring_with_an_example() -> None:
    assert [name for name, thing in THINGS.items() if ">>>" not in examples.docstring(thing)] == []


@pytest.mark.timeout(120)
def test_the_examples_do_what_they_show(mount: Mount) -> None:
    things = THINGS | _ALSO
    texts = [(name, examples.docstring(thing)) for name, thing in things.items() if name not in _ELSEWHERE]
    assert mount.root.begin(examples.run, texts).result(100) == ""


def test_the_example_of_parsing_an_event() -> None:
    assert events.parse("1764380000.250000 carrier virt3 carrier=1") == events.Event(
        1764380000.25, "carrier", "virt3", {"carrier": 1}
    )
    assert events.parse("1.5 lost 7") == events.Event(1.5, "missed", "", {"events": 7})
    assert events.parse("1.5 bridge virt3 bridge=5").values == {"bridge": "5"}
    assert events.parse("1.5 bridge virt3 bridge=").values == {"bridge": ""}
