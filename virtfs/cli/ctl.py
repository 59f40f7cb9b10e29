"""`virtfs ctl`: write a line to the ctl of a mount. If the line is refused, print the reason."""

import errno
import os
import re
import time
from collections.abc import Sequence
from functools import partial

from virtfs.cli.denied import why_denied
from virtfs.cli.mounts import ask_patiently, chosen, expect_virtfs, explained, last_error, say
from virtfs.cli.surroundings import complain, sentence_of
from virtfs.core.errors import VirtError
from virtfs.core.help_text import help_about, help_text
from virtfs.core.quoting import quoted
from virtfs.core.warning_text import split_warnings

_OF_A_FILE = "to run the lines of a file, use cat FILE >DIR/ctl, where DIR is the mount"
_OF_ONE = re.compile(r"\s*(virt[0-9]+)\s+(.*)", re.DOTALL)


def ctl(directory: str | None, words: Sequence[str]) -> None:
    """Write a line to the ctl of a mount. If the line is `help` or `help WORD`, print the text of the file help, or its
    lines about a command or verb, instead.

    directory: the mount, or the directory of an interface or bridge; None for the default (mounts.chosen). words: the
    line, or the words of the line.
    VirtError: the errno of the write, with the message in last_error; EINVAL, the line is empty, or no help;
    ENOENT, no virtfs is mounted there.
    """
    line = " ".join(words)
    if not line.strip():
        raise VirtError(errno.EINVAL, f'ctl needs a line, as in "virtfs ctl create 3 up"; {_OF_A_FILE}')
    if line.split()[0] == "help":
        say(_help(line.split()[1:]))
        return
    where = chosen(directory)
    expect_virtfs(where)  # a directory without a mount may have a plain file of this name
    told = ask_patiently(where, partial(_write, line=line))
    for warning in split_warnings(told.decode("utf-8", "surrogateescape")) if told else ():
        complain("virtfs", warning)


def _help(words: Sequence[str]) -> str:
    if not words:
        return help_text()
    asked = " ".join(words)
    if text := help_about(asked):
        return text
    raise VirtError(errno.EINVAL, f'{quoted(asked)} is no command or verb of ctl: "virtfs ctl help" lists them')


def _write(directory: str, line: str) -> bytes:
    """Write a line. Return the warnings that the line left in last_error, or b"" if none. Runs in a child."""
    file = os.path.join(directory, "ctl")
    # The owner of an interface may write to the interface's ctl, but not to the mount's.
    if (match := _OF_ONE.fullmatch(line)) and not os.access(file, os.W_OK):
        own = os.path.join(directory, match[1], "ctl")
        if os.access(own, os.W_OK):
            file, line = own, match[2]
    began = time.time_ns()
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise VirtError(errno.EACCES, f"{quoted(line)}: {_denied(directory, line, error)}") from None
    except OSError as error:
        raise explained(error, directory, began) from None
    try:
        data = line.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise explained(error, directory, began) from None
    finally:
        os.close(fd)
    return last_error(directory, began).encode("utf-8", "surrogateescape")


def _denied(directory: str, line: str, error: PermissionError) -> str:
    """Return the reason why the user may not write a line to the ctl of `directory`."""
    if os.path.lexists(os.path.join(directory, "frame")) or os.path.lexists(os.path.join(directory, "status")):
        return why_denied(os.path.join(directory, "ctl")) or sentence_of(error)
    match = _OF_ONE.fullmatch(line)
    if match is None:
        return 'only root may use this command; the owner of virtN may use "virtN VERB ..."'
    own = os.path.join(directory, match[1], "ctl")
    if not os.path.exists(own):
        return f"there is no {match[1]}"
    return why_denied(own) or sentence_of(error)
