"""Why a program cannot be executed, in more words than execve(2) has.

The kernel gives ENOEXEC for a script without a #! line, which shells run nevertheless, and ENOENT for a script whose
interpreter does not exist (execve(2)).
"""

import errno
import os
import shutil

from virtfs.cli.shell_mark import remedy
from virtfs.core.line_words import AS_IN_WINDOWS
from virtfs.core.quoting import quoted

_LONGEST = 256  # bytes of a #! line that the kernel reads (BINPRM_BUF_SIZE, linux/binfmts.h)
TOO_MANY = "the limit of processes may be reached (`ulimit -u`, or TasksMax of the user's slice)"


def refusal(program: str, failure: OSError) -> tuple[str, int]:
    """Return the error message for a program that cannot be executed, and the exit status that a shell would have.

    program: the first word of the command. The status is 127 if there is no such program, else 126.
    """
    path = program if "/" in program else shutil.which(program)
    if path is None:
        return f"{quoted(program)}: command not found", 127
    why = _why(path, failure)
    return f"{quoted(program)}: {failure.strerror}{why and f': {why}'}", 127 if failure.errno == errno.ENOENT else 126


def _why(path: str, failure: OSError) -> str:
    match failure.errno:
        case errno.ENOEXEC if not _starts_with(path, b"\x7fELF"):
            return "it has no #! line, such as #!/bin/bash"
        case errno.ENOENT if interpreter := _interpreter(path):
            advice = f": {AS_IN_WINDOWS}" if interpreter.endswith("\r") else ""
            return f"its interpreter {quoted(interpreter)} does not exist{advice}"
        case errno.EACCES if os.path.isfile(path) and not os.access(path, os.X_OK):
            return "it is not executable: chmod +x makes it so"
        case errno.EAGAIN:
            return TOO_MANY
        case errno.ENOTCONN:
            return remedy(path)
    return ""


def _interpreter(path: str) -> str:
    """Return the interpreter that a script names, or "" if the file cannot be read or is no script."""
    if not _starts_with(path, b"#!"):
        return ""
    words = _begin(path)[2:].partition(b"\n")[0].strip(b" \t").split(b" ", 1)
    return os.fsdecode(words[0].split(b"\t", 1)[0])


def _starts_with(path: str, begin: bytes) -> bool:
    return _begin(path).startswith(begin)


def _begin(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return b""
