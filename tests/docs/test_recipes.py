"""The lines of virtfs-recipes(7), typed into one shell from the first to the last."""

import re

import pytest

from .markdown import ROOT
from .tour import touring

pytestmark = pytest.mark.timeout(180)  # many steps, each of which may take as long as PATIENCE

PAGE = (ROOT / "man/virtfs-recipes.7").read_text()
# Recipes that need a terminal, a virtual machine, a program of the reader's, or the host; other tests run them.
ELSEWHERE = (
    *("tshark -i", "virtfs exec", "virtfs extcap", "virtfs mount", "virtfs top"),
    *("none /mnt/virt virtfs", "systemctl"),
)

# What some recipes must print.
PRINTS = {
    "xxd": r"ffff ffff ffff .* 0806",
    "tx_frames": r"^1$",
    "owner nobody": r"-rw------- 1 nobody root",
    "near ping -c1": r"1 received",
    "ping -qc2": r"2 received|1 received|100% packet loss",
    "seed 7": r"virt1 - virt2 .* delay 20ms loss 1% seed 7",
    "carrier off": r"^0\n0\n1\n1$",
    "bridge0/members": r"^tap6\ntap7$",
    "exec h1 ping": r"1 received",
    "eth0 adopt": r"^bridge0 .*10.0.8.1/24",
    "delete eth0": r"^eth0.*10.0.8.1/24",
    "lab.socket": r"virt8 - unix-listen:/run/lab.socket",
    "tcpdump": r"ARP, Request who-has 10.0.3.9",
    "wait/up": r"^1$",
}


def recipes() -> list[str]:
    """Return the blocks of literal lines."""
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", PAGE, re.MULTILINE | re.DOTALL)
    return [block.replace(r"\e", "\\") for block in blocks]


def test_who_loses_an_interface_loses_also_what_children_inherited() -> None:
    """A user's shell has opened the capture, and its child goes on with the descriptor after the shell is killed."""
    (recipe,) = [recipe for recipe in recipes() if "owner root mode 600" in recipe]
    with touring() as shell:
        shell.run("exec 2>&1; echo create 3 up owner nobody >ctl", 0)
        shell.run("setpriv --reuid nobody --clear-groups sh -c 'exec <virt3/pcap; sleep 1000; :' &", 0)
        shell.run("until pgrep -P $! -x sleep >/dev/null; do sleep 0.02; done", 0)
        assert shell.run("tail -n +2 virt3/clients | wc -l", 1) == "1\n"
        shell.run(recipe, 0)
        assert shell.run("tail -n +2 virt3/clients | wc -l", 1) == "0\n"


def test_each_recipe_works() -> None:
    unused = dict(PRINTS)
    with touring() as shell:
        shell.run("exec 2>&1; umask 022", 0)
        shell.run("ip link add eth0 up type veth peer name far0; ip address add 10.0.8.1/24 dev eth0", 0)
        for recipe in recipes():
            if recipe.startswith(ELSEWHERE):
                continue
            said = shell.run(f"{recipe}echo status $?", 1)
            assert said.endswith("status 0\n"), f"{recipe}: {said}"
            assert not re.search(r"^(bash|virtfs|ping|cat|dd): ", said, re.MULTILINE), f"{recipe}: {said}"
            for line, pattern in PRINTS.items():
                if line in recipe:
                    assert re.search(pattern, said.removesuffix("status 0\n"), re.MULTILINE), f"{recipe}: {said}"
                    unused.pop(line, None)
        shell.run("echo destroy all >ctl; ip link delete eth0", 0)
        shell.run("for n in near far h1 h2; do ip netns delete $n; done", 0)
        shell.run("rm -f /run/seen.pcapng /run/lab.ctl /run/lab.state", 0)
    assert not unused
