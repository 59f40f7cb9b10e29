"""Real runs in a terminal of 80 columns or a little more, with a virtfs at /mnt/virt in namespaces of its own."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.markdown import ROOT, blocks, section
from harness.screens import Screen
from harness.serving import ENVIRONMENT, Mount

from .terminal import drawn

PROMPT = "/mnt/virt#"
# The laboratory of the pictures: two machines with a bad line between them, a bridge with two ports, and a user's
# program. Each machine is a network namespace.
LAB = """\
create 1 up inet 10.0.1.1/24 netns near description web server
create 2 up inet 10.0.1.2/24 netns far description a client far away
cable 1 2 delay 20ms 5ms loss 1% seed 7
create bridge0 up inet 10.0.7.1/24
create 3 up bridge bridge0 link 02:00:00:00:00:03 owner nobody description a stack under test
create 4 up bridge bridge0 description a port of the switch
create 5 up inet 10.0.7.5/24 netns lab description a machine at the switch
cable 4 5 rate 10mbit
"""
NAMESPACES = ("near", "far", "lab")
# Pings at rates that go up and down, a reader of virt3, and frames that no program reads.
TRAFFIC = """\
pinging() { for i in $3; do ip netns exec $1 ping -q -s 900 -i $i -w 1 $2; done >/dev/null; }
ip neigh add 10.0.7.3 lladdr 02:00:00:00:00:03 dev bridge0
ip neigh add 10.0.6.2 lladdr 02:00:00:00:00:02 dev tap6
ping -q -i 0.02 10.0.7.3 >/dev/null & ping -q -i 0.1 10.0.6.2 >/dev/null &
cat virt3/frame >/dev/null &
while :; do pinging near 10.0.1.2 "0.02 0.01 0.007 0.005 0.004 0.005 0.007 0.01"; done &
while :; do pinging lab 10.0.7.1 "0.01 0.02 0.05 0.1 0.05 0.02"; done &
echo started; wait
"""


@contextmanager
def mounted() -> Iterator[Mount]:
    """Mount at /mnt/virt in new namespaces, and clean up. AssertionError: something was left behind."""
    mount = Mount(before=["nice", "-n", "-20"])
    try:
        yield mount
    finally:
        wrong = mount.stop()
    assert not wrong, wrong


@contextmanager
def laboratory() -> Iterator[Mount]:
    """Mount, and build the laboratory."""
    with mounted() as mount:
        mount.sh("".join(f"ip netns add {name}; ip -n {name} link set lo up\n" for name in NAMESPACES))
        mount.sh(f"echo -n {shlex.quote(LAB)} >ctl")
        try:
            yield mount
        finally:
            mount.end_programs()
            mount.sh("for n in 1 2 3 4 5 6; do echo destroy $n; done >ctl; echo destroy bridge0 >ctl")
            mount.sh("".join(f"ip netns delete {name}\n" for name in NAMESPACES))


@contextmanager
def terminal(mount: Mount, script: str, width: int = 80, height: int = 24) -> Iterator[Screen]:
    """Run a shell script in a terminal in the mount point."""
    with TemporaryDirectory() as directory:
        screen = Screen(mount, Path(directory), f"cd /mnt/virt; {script}", ENVIRONMENT | {"LC_ALL": "C.UTF-8"})
        try:
            screen.resize(width, height)
            yield screen
        finally:
            screen.close()


@contextmanager
def shell(mount: Mount, width: int, height: int) -> Iterator[Screen]:
    """Run an interactive bash with an empty screen and a prompt in colour."""
    prompt, before_output = r"\[\e[32m\]\w#\[\e[m\] \[\e[1m\]", r"\e[m"  # what is typed is bold
    environment = f"PS1={shlex.quote(prompt)} PS0={shlex.quote(before_output)} HISTFILE= COLORTERM=truecolor"
    with terminal(mount, f"exec env {environment} bash --norc --noprofile", width, height) as screen:
        screen.until(rf"{PROMPT}\Z")
        screen.type("clear")
        screen.until(rf"\A\s*{PROMPT}\Z")
        yield screen


def typed(screen: Screen, lines: list[str]) -> str:
    """Type lines, each after the next prompt. Returns the screen with escape sequences, without the last prompt."""
    for number, line in enumerate(lines, 2):
        screen.type(line)
        screen.until(rf"(?s:\A\s*(?:{PROMPT}.*?){{{number}}}(?<={PROMPT})\Z)")
    return screen.text(colours=True).strip("\n").rpartition("\n")[0]


def tour() -> str:
    """Draw the first minute of the README: its own commands, and what they print."""
    steps = [b for b in blocks(section((ROOT / "README.md").read_text(), "The first minute")) if b.language == "sh"]
    lines = [line for step in steps for line in step.text.splitlines()]
    with mounted() as mount:
        with shell(mount, 96, 24) as screen:
            shown = typed(screen, lines)
        mount.sh("echo destroy 3 >ctl")
    return drawn(shown, "the first minute", "tour", 96)


def top() -> str:
    """Draw `virtfs top` while the laboratory is in use."""
    with laboratory() as mount:
        mount.ctl("create 6 up inet 10.0.6.1/24")
        users = mount.shell(f"{{\n{TRAFFIC}\n}}", stdout=subprocess.PIPE)
        assert users.stdout
        assert users.stdout.readline() == "started\n"
        with terminal(mount, f"exec {ROOT}/.venv/bin/virtfs top -d /mnt/virt -i 0.5", 80, 14) as screen:
            screen.until(r"^virt5 .* [▁-█]{12}\s*$")
            shown = screen.text(colours=True)
            screen.press("q")
    return drawn(shown, "virtfs top", "top")


def capture() -> str:
    """Draw a tshark that reads the file pcap of an interface, while a ping crosses a line that loses frames."""
    lines = [
        "ip netns exec near ping -q -i0.2 10.0.1.2 >/dev/null &",
        "tshark --color -c8 -l -r virt1/pcap 2>/dev/null",
    ]
    with laboratory() as mount, shell(mount, 120, 24) as screen:
        shown = typed(screen, lines)
    return drawn(shown, "a live capture", "tshark", 120)


def topology() -> str:
    """Draw the file topology of the laboratory, as `dot -Tsvg` does."""
    with laboratory() as mount:
        graph = mount.sh("cat topology")
    return dot(graph)


def drawing(name: str) -> str:
    """Draw a source in the DOT language, doc/pictures/NAME.dot."""
    return dot((ROOT / f"doc/pictures/{name}.dot").read_text())


def dot(graph: str) -> str:
    """Return the SVG of a graph in the DOT language, with a margin and a background of its own."""
    command = ["dot", "-Tsvg", "-Gbgcolor=white", "-Gpad=0.2", "-Ecolor=gray60"]
    svg = subprocess.run(command, input=graph, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    return re.sub(r"<!--.*?-->\n?|<\?xml.*?\?>\n|<!DOCTYPE.*?>\n", "", svg, flags=re.DOTALL)
