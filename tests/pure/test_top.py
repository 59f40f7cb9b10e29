"""virtfs top without a terminal: rates, order, scrolling, columns and plots."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfs.cli import terminal
from virtfs.cli.columns import cells, cut, padded
from virtfs.cli.main import main
from virtfs.cli.plot import ASCII, plot
from virtfs.cli.rates import Interface, Interfaces, rates_of
from virtfs.cli.shell_mark import own_first
from virtfs.cli.top_view import HELP, View

MOUNT = "/mnt/virt"


def virt(unit: int, index: int = 0, readers: int = 0, **stats: int) -> dict[str, Any]:
    """Return an interface of status.json, with these counters."""
    names = ("rx_frames", "rx_bytes", "rx_dropped", "tx_frames", "tx_bytes", "tx_dropped", "tx_oversize")
    texts = {"description": "", "impair": "", "filter": "", "address": "b2:00", "mode": "0600"}
    numbers = {"queue": 256, "backlog": 0, "mtu": 1500, "owner": 0, "group": 0, "readers": readers}
    tap = {"name": f"tap{unit}", "index": index or unit, "carrier": True, "addresses": [], "bridge": "", "netns": ""}
    return {
        "name": f"virt{unit}",
        "unit": unit,
        "lost": False,
        "up": True,
        "owner_name": "root",
        **texts,
        **numbers,
        "tap": {**tap, "address": "f6:00"},
        "stats": dict.fromkeys(names, 0) | stats,
    }


def seen(*samples: list[dict[str, Any]], directory: str = MOUNT) -> Interfaces:
    """Return the interfaces after samples that were taken two seconds apart."""
    interfaces = Interfaces()
    for number, virts in enumerate(samples):
        interfaces.add(directory, 100 + 2 * number, {"virts": virts})
    return interfaces


def shown(view: View, interfaces: Interfaces, height: int = 24, width: int = 80, **troubles: str) -> list[str]:
    """Return the lines of a screen, after checking that they fit and can be printed."""
    lines = view.lines(interfaces, {f"/{name}": why for name, why in troubles.items()}, height, width)
    assert len(lines) <= height
    assert all(cells(line.text) <= width and line.text.isprintable() for line in lines)
    return [line.text.rstrip() for line in lines]


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith("virt")]


def press(view: View, interfaces: Interfaces, *keys: str) -> None:
    for key in keys:
        assert view.press(key, interfaces)


BUSY = seen(
    [virt(1), virt(2), virt(3, readers=2)],
    [virt(1, rx_frames=10, rx_bytes=1000), virt(2, tx_frames=400, tx_bytes=80), virt(3, readers=2, rx_dropped=4)],
)


def test_rates_are_differences_by_the_second() -> None:
    one, two, three = BUSY
    assert one.rates["rx_frames"] == 5
    assert list(two.past) == [(0, 200)]
    assert (three.drops, three.dropped) == (2, 4)
    first, second = {"virts": [virt(1, rx_frames=9)]}, {"virts": [virt(1, rx_frames=3), virt(2)]}
    assert rates_of(first, second, 1.0)["virt1"]["rx_frames"] == 0
    assert rates_of(first, second, 1.0).keys() == {"virt1"}


def test_an_interface_that_was_made_again_begins_again() -> None:
    (one,) = seen([virt(1, rx_frames=50)], [virt(1, rx_frames=60)], [virt(1, index=9, rx_frames=90)])
    assert (one.rates, list(one.past)) == ({}, [])


def test_interfaces_of_a_mount_that_is_gone_are_forgotten() -> None:
    interfaces = seen([virt(1)])
    interfaces.forget(MOUNT)
    assert list(interfaces) == []
    assert "no virtfs mount" in " ".join(shown(View(), interfaces))


def test_the_mount_of_the_users_shell_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTFS", "/mnt/virt")
    interfaces = Interfaces(own_first())
    for directory in ("/mnt/class", "/mnt/virt", "/mnt/a"):
        interfaces.add(directory, 100, {"virts": [virt(3)]})
    assert [one.directory for one in interfaces] == ["/mnt/virt", "/mnt/a", "/mnt/class"]
    lines = View(False).lines(interfaces, {"/mnt/a": "silent", "/mnt/virt": "ended"}, 24, 80)
    assert [line.text for line in lines if line.style == "alarm"] == ["/mnt/virt: ended", "/mnt/a: silent"]


@pytest.mark.parametrize(
    ("key", "order"), [("n", "123"), ("r", "123"), ("t", "213"), ("b", "123"), ("d", "312"), ("o", "312")]
)
def test_keys_sort(key: str, order: str) -> None:
    view = View()
    press(view, BUSY, key)
    assert names(shown(view, BUSY)) == [f"virt{number}" for number in order]
    press(view, BUSY, "i")
    assert names(shown(view, BUSY)) == [f"virt{number}" for number in reversed(order)]


def test_the_selection_stays_with_an_interface_and_scrolls() -> None:
    interfaces = seen([virt(unit) for unit in range(200)], [virt(unit, rx_frames=unit) for unit in range(200)])
    view = View()
    assert names(shown(view, interfaces)) == [f"virt{unit}" for unit in range(21)]
    press(view, interfaces, "pagedown", "down")
    assert names(shown(view, interfaces))[-1] == "virt22"
    press(view, interfaces, "r")
    assert "virt22" in names(shown(view, interfaces))
    assert next(line for line in view.lines(interfaces, {}, 24, 80) if line.style == "selected").text[:6] == "virt22"
    press(view, interfaces, "end")
    assert names(shown(view, interfaces))[-1] == "virt0"
    press(view, interfaces, "home")
    assert names(shown(view, interfaces))[0] == "virt199"
    press(view, interfaces, "up", "enter")
    assert shown(view, interfaces)[0].startswith("virt199 ")
    assert view.watched == (MOUNT, 199)


def test_the_page_of_one_interface() -> None:
    view = View()
    press(view, BUSY, "down", "enter")
    lines = view.lines(BUSY, {}, 40, 60, "PID COMMAND\n12 cat\n")
    text = [line.text for line in lines]
    assert "frames    0    0 400  200" in text
    assert "oversize           0    0" in text
    assert {"PID COMMAND", "12 cat"} <= set(text)
    assert "█" in text[text.index("tx frames/s, at most 200") + 1]
    press(view, BUSY, "enter")
    assert names(shown(view, BUSY)) == ["virt1", "virt2", "virt3"]
    press(view, BUSY, "enter")
    assert "is gone" in shown(view, seen([virt(7)]))[0]


def test_help_has_every_key_and_any_key_leaves_it() -> None:
    view = View()
    press(view, BUSY, "enter", "?")
    text = "\n".join(shown(view, BUSY))
    assert all(meaning in text for _, meaning in HELP)
    press(view, BUSY, "x")
    assert shown(view, BUSY)[0].startswith("virt1 ")
    assert not view.press("q", BUSY)


@pytest.mark.parametrize("size", [(24, 80), (8, 40), (4, 20), (2, 9), (1, 1), (1, 80), (60, 300)])
@pytest.mark.parametrize("keys", ["", "?", ("down", "enter")])
def test_every_size(size: tuple[int, int], keys: tuple[str, ...]) -> None:
    view = View()
    press(view, BUSY, *keys)
    lines = shown(view, BUSY, *size, bad="no answer")
    assert len(lines) >= 1
    if size == (8, 40) and not keys:
        assert lines[2].split() == ["INTERFACE", "RX/S", "TX/S", "DROP/S"]
        assert lines[1].startswith("/bad: no answer")
        assert lines[3].split()[:4] == ["/mnt/virt/virt1", "5", "0", "0"]


def test_unprintable_names_are_escaped() -> None:
    """The names of mount points, users, namespaces and taps are chosen by others."""
    odd = "\x1b[2J\u202e\n"
    one = virt(1) | {"owner_name": odd, "description": odd, "filter": odd}
    one["tap"] |= {"name": odd, "netns": odd, "bridge": odd}
    view = View()
    interfaces = seen([one], directory=f"/mnt/{odd}")
    text = " ".join(shown(view, interfaces, bad=odd))
    press(view, interfaces, "enter")
    text += " ".join(shown(view, interfaces, width=300))
    assert text.count(r"\x1b[2J\u202e\n") >= 6
    assert all(line.text.isprintable() for line in view.lines(interfaces, {}, 50, 300, f"PID\n1 {odd}"))


@pytest.mark.parametrize("marks", ["▁▂▃▄▅▆▇█", ASCII])
def test_a_plot_is_as_wide_and_high_as_asked(marks: str) -> None:
    assert plot([0, 1, 8], 5, marks=marks) == [f"   {marks[0]}{marks[-1]}"]
    assert plot([5], 0) == [""]
    assert plot([0, 4, 8], 3, 2, marks) == [f"  {marks[-1]}", f" {marks[-1] * 2}"]
    assert plot([1, 1000], 2, 3, marks)[-1][0] == marks[0]  # too small for its scale, but not nothing
    assert plot([0, 0], 2, marks=marks) == ["  "]


@given(st.lists(st.floats(0, 1e12)), st.integers(0, 99), st.integers(1, 9))
def test_any_numbers_make_a_plot(numbers: list[float], width: int, height: int) -> None:
    lines = plot(numbers, width, height)
    assert [len(line) for line in lines] == [width] * height


@given(st.text(), st.integers(0, 20))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width
    assert cells(padded(cut(text, width), width, ">")) == width


def test_widths_are_counted_in_cells() -> None:
    assert [cells(text) for text in ("virt3", "網路", "e\N{COMBINING ACUTE ACCENT}")] == [5, 4, 1]
    assert cut("網路網路", 5) == "網路…"
    assert unicodedata.east_asian_width("網") == "W"


def test_an_interface_knows_its_place() -> None:
    assert Interface(MOUNT, virt(3)).key == (MOUNT, 3)


def test_top_needs_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda fd: False)
    assert main(["top"]) == 1
    assert "top needs a terminal" in capsys.readouterr().err
    monkeypatch.setattr("os.isatty", lambda fd: True)
    monkeypatch.setenv("TERM", "dumb")
    assert main(["top"]) == 1
    assert 'the terminal type "dumb" cannot move the cursor' in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "0.05", "61", "-1", "x", "1e0", ""])
def test_intervals_out_of_range(interval: str) -> None:
    with pytest.raises(SystemExit):
        main(["top", "-i", interval])


@pytest.mark.parametrize(
    ("environment", "shows"),
    [
        ({}, False),
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "C.utf8", "LC_ALL": ""}, True),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
    ],
)
def test_the_locale_says_whether_blocks_are_shown(environment: dict[str, str], shows: bool) -> None:
    assert terminal.shows_unicode(environment) == shows
