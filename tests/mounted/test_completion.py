"""Completion in bash, zsh and fish: Tab is pressed in a terminal. The scripts are where the wheel installs them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from harness.screens import Screens
from harness.serving import PROJECT, Mount

SHELLS = {
    "bash": "exec env 'PS1=ready> ' bash --norc -i",
    "zsh": "exec env 'PS1=ready> ' zsh -f -i",
    "fish": "exec fish -i -C 'function fish_prompt; echo -n \"ready> \"; end; function fish_greeting; end'",
}
SHELLS["plain bash"] = SHELLS["bash"]
SETUP = {
    "plain bash": ". {}/share/bash-completion/completions/virtfs; clear",
    "bash": ". /usr/share/bash-completion/bash_completion; clear",
    "zsh": "fpath=({}/share/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D; clear",
}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A prefix with the completion scripts at their places, and with a command virtfs in bin."""
    files = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    names = {name: place for place, names in files.items() for name in names if name.startswith("completions/")}
    assert names.keys() == {f"completions/{path.name}" for path in (PROJECT / "completions").iterdir()}
    for name, place in names.items():
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / Path(name).name).write_text((PROJECT / name).read_text())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/virtfs").write_text(f'#!/bin/sh\nexec {sys.executable} -m virtfs "$@"\n')
    (tmp_path / "bin/virtfs").chmod(0o755)
    # Without this folder, fish reads all man pages when it first starts.
    (tmp_path / ".local/share/fish/generated_completions").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_tab(shell: str, mount: Mount, screens: Screens, installed: Path) -> None:
    mount.ctl("create 3\ncreate 12")
    path = f"{installed}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    data = f"{installed}/share:/usr/local/share:/usr/share"
    screen = screens(mount, SHELLS[shell], PATH=path, XDG_DATA_DIRS=data, HOME=str(installed))
    screen.until("ready>")
    if shell in SETUP:
        screen.type(SETUP[shell].format(installed))
        screen.until(r"\Aready>$")

    def tab(typed: str, result: str) -> None:
        """Type the beginning of a command, press Tab, and wait for the result."""
        screen.ask(f"send-keys -l '{typed}'")
        screen.until(re.escape(typed))
        screen.press("Tab")
        screen.until(f"^ready> {re.escape(result)}")
        screen.press("C-u")

    tab("virtfs ctl check destroy virt1", "virtfs ctl check destroy virt12")
    tab("virtfs shell -- runus", "virtfs shell -- runuser")


def test_members_are_offered_that_a_bridge_can_take(mount: Mount) -> None:
    mount.ctl("create 3\ncreate 4\ncreate bridge0 add virt3")
    mount.ip("link add eth7 type veth peer name eth8")
    mount.ip("link add br-other type bridge")
    mount.ip("link set eth8 master br-other")
    said = mount.sh(f"{sys.executable} -m virtfs __complete ctl bridge0 add ''")
    assert {line.partition("\t")[0] for line in said.splitlines()} >= {"eth7", "virt4"}
    assert not {"lo", "bridge0", "br-other", "eth8", "virt3", "tap3"} & set(said.split())
    assert "virt3" in mount.sh(f"{sys.executable} -m virtfs __complete ctl bridge0 delete ''")
    mount.ctl("destroy bridge0\ndestroy 3\ndestroy 4")
    mount.delete_links("eth7", "br-other")
