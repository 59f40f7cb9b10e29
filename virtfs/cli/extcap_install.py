"""`virtfs extcap --install`: make Wireshark and tshark call `virtfs extcap`.

Wireshark runs every program in its personal and global extcap folders. This module puts a program there that calls
virtfs.
"""

import errno
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from virtfs.cli.extcap import DLT
from virtfs.cli.mounts import say
from virtfs.core.errors import VirtError

_MARK = "# Written by `virtfs extcap --install`."
# Wireshark calls the program for the options of every interface when it starts, and later for the link types. A shell
# script answers these calls itself, because starting Python would take 0.1 s for each interface. Ctrl-C in a terminal
# reaches all processes, and Python would print a traceback while it starts. So the script ignores SIGINT. tshark ends a
# capture with SIGTERM.
_PROGRAM = f"""\
#!/bin/sh
{_MARK}
trap '' INT
case $1 in
    --extcap-config) exit ;;
    --extcap-dlts) echo '{DLT.strip()}'; exit ;;
esac
exec COMMAND extcap "$@"
"""
_PATIENCE = 30  # seconds


def install(everywhere: bool) -> None:
    """Install the program. everywhere: for all users, not only for this one. A second call changes nothing.

    VirtError: EEXIST, a file that virtfs did not write is in the way; ENOENT, the folder is unknown; EACCES, this user
    may not write to the folder.
    """
    path = _path(everywhere)
    _check_ours(path)
    _check_rights(path.parent)
    text = _PROGRAM.replace("COMMAND", shlex.join(_command()))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text)
        new.chmod(0o755)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    say(f"{path} is installed: Wireshark and tshark now list the interfaces of virtfs\n")


def uninstall(everywhere: bool) -> None:
    """Remove the program. A second call changes nothing. Errors are those of install()."""
    path = _path(everywhere)
    _check_ours(path)
    _check_rights(path.parent)
    there = path.exists()
    path.unlink(missing_ok=True)
    say(f"{path} is removed\n" if there else f"{path} is not installed\n")


def _check_ours(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or _MARK.encode() not in path.read_bytes().splitlines()):
        raise VirtError(errno.EEXIST, f'"{path}" exists but was not written by virtfs: remove it first')


def _check_rights(folder: Path) -> None:
    if folder.exists() and not os.access(folder, os.W_OK):
        raise VirtError(errno.EACCES, f'extcap: this user cannot write to "{folder}": use sudo')


def _path(everywhere: bool) -> Path:
    told = _asked("tshark", "-G", "folders")
    rows = dict(re.findall(r"^(.*?):\s*(/.*)$", told, re.MULTILINE))
    if everywhere:
        folder = rows.get("Global Extcap path", rows.get("Extcap path"))
        if folder is None:
            raise VirtError(errno.ENOENT, "extcap: tshark, which reports the folder for all users, is not installed")
    else:
        folder = rows.get("Personal Extcap path") or _personal()
    return Path(folder, "virtfs")


def _personal() -> str:
    """Return the personal extcap folder. Used if tshark does not report it. Wireshark 4.1 moved the folder."""
    version = re.search(r"([0-9]+)\.([0-9]+)", _asked("dumpcap", "--version"))
    if version and (int(version[1]), int(version[2])) < (4, 1):
        return os.path.join(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "wireshark/extcap")
    return os.path.join(Path.home(), ".local/lib/wireshark/extcap")


def _asked(*command: str) -> str:
    """Return the standard output of a program, or "" if it cannot be started or does not end in time."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
        return done.stdout.decode(errors="surrogateescape")
    return ""


def _command() -> list[str]:
    """Return a command that runs this installation of virtfs: the running program, or else `python -m virtfs`."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) == "virtfs" and os.access(program, os.X_OK) and os.path.isfile(program):
        return [program]
    return [sys.executable, "-P", "-m", "virtfs"]
