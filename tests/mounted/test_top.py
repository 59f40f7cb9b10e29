"""virtfs top in a real terminal, with keys pressed."""

import os
import re
import signal
import sys
from pathlib import Path

from harness.fixtures import Alone
from harness.places import DIR, Place
from harness.screens import Screen, Screens
from harness.serving import Mount, Virts, frame
from harness.waiting import until

TOP = f"{sys.executable} -m virtfs top"


def shell(screens: Screens, place: Place, **environment: str) -> Screen:
    """Start an interactive shell in a terminal, and remember the settings of the terminal."""
    screen = screens(place, 'exec env "PS1=ready> " bash --norc -i', **environment)
    screen.until("ready>")
    screen.type("before=$(stty -g)")
    return screen


def check_restored(screen: Screen, status: int) -> str:
    """Assert that top has ended with this status and has restored the terminal. Return what the terminal shows."""
    screen.until(r"ready>$")
    screen.type('echo "status $?"; [ "$before" = "$(stty -g)" ] && echo same settings')
    text = screen.until("^same settings$")
    assert f"\nstatus {status}\n" in text
    assert "INTERFACE" not in text  # the alternate screen is left
    assert screen.ask("display -p '#{cursor_flag} #{keypad_flag}'") == ["1 0"]
    return text


def test_rates_pages_and_keys(virts: Virts, screens: Screens) -> None:
    one, two = virts(), virts()
    reader = one.mount.shell(f"exec cat {one.name}/frame >/dev/null")
    screen = shell(screens, one.mount)
    screen.type(f"{TOP} -i 0.2")
    screen.until(f"^{one.name} ")

    def sends(*patterns: str) -> bool:
        one.host_sends(frame(1000))
        two.host_sends(frame(100))
        text = screen.text()
        return all(re.search(pattern, text, re.MULTILINE) for pattern in patterns)

    rate = r" +[0-9.]*[1-9][0-9.]*k?"
    listed = rf"^{one.name} +up +1{rate} +0 .* 0 +0 .*█"
    until(lambda: sends(listed, rf"^{two.name} +up +0 .*{rate}{rate} *"), "rates and drops")
    assert "\x1b[31m" in screen.text(colours=True)  # dropped frames are red
    screen.press("d")
    screen.until("by drops")
    until(
        lambda: sends("by drops") and screen.text().splitlines()[2].startswith(two.name), "the one with drops is first"
    )
    screen.press("n", "Down", "Down", "Up", "Enter")
    screen.until(f"^{one.name}  up  {DIR}")
    until(lambda: sends(rf"^frames +\d+{rate}"), "rates of an interface")
    screen.until(rf"^ *{reader.pid} +cat +frame")
    screen.press("PageDown")
    screen.until("^spoofed")
    screen.press("?")
    screen.until("sort by name")
    screen.press("Space", "Enter")
    screen.until("^INTERFACE")
    screen.press("q")
    check_restored(screen, 0)


def test_many_interfaces_in_terminals_of_any_size(mount: Mount, screens: Screens) -> None:
    mount.ctl("\n".join(f"create {unit}" for unit in range(30)))
    screen = screens(mount, f"{TOP} -d {DIR}", TERM="vt100", NO_COLOR="1")
    first = screen.until("^virt20 ")
    assert "30 interfaces" in first
    assert "virt21" not in first
    screen.press("End")
    screen.until("^virt29 ")
    for width, height in ((40, 8), (100, 30), (15, 3)):
        screen.resize(width, height)
        last = height - (1 if height > 5 else 0)
        until(lambda at=last: (screen.text().splitlines() + [""] * 30)[at - 1].startswith("virt29 "), "the new size")  # type: ignore[misc]
    assert not re.search(r"\x1b\[[0-9;]*[34][0-7]m", screen.text(colours=True))


def test_every_end_restores_the_terminal(alone: Alone, screens: Screens) -> None:
    mount = alone()
    mount.ctl("create 3")
    screen = shell(screens, mount)
    screen.type(f"{TOP} -d {DIR}")
    screen.until("^virt3 ")
    screen.press("C-z")
    screen.until(r"Stopped(.|\n)*ready>$")
    screen.type("fg")
    screen.until("^virt3 ")
    screen.press("C-c")
    check_restored(screen, 130)
    screen.type(f"clear; {TOP} -d {DIR}")
    screen.until("^virt3 ")
    (pid,) = [pid for pid, line in mount.processes().items() if " top " in line and child(pid)]
    os.kill(pid, signal.SIGTERM)
    assert "Terminated" in check_restored(screen, 143)
    os.kill(mount.server.pid, signal.SIGSTOP)
    try:
        screen.type(f"clear; {TOP} -i 0.5")
        # Servers of other tests, for the same mount point in other namespaces, may be named too.
        screen.until(f"^{DIR}: no answer for [0-9]+ s; is its server stopped .(pid [0-9]+, )*pid {mount.server.pid}")
        screen.press("q")
        check_restored(screen, 0)
    finally:
        os.kill(mount.server.pid, signal.SIGCONT)
    screen.type(f"clear; {TOP} -d {DIR}")
    screen.until("^virt3 ")
    mount.end()
    assert f'virtfs: "{DIR}" has been unmounted' in check_restored(screen, 1)


def child(pid: int) -> bool:
    """Return whether a process has children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text() != ""
