"""Make the process independent of what it inherits from its caller: standard streams, locale, working directory.

Both programs call settle() first. Afterwards descriptors 0 to 2 are open, names and paths are UTF-8, and standard
output and standard error can encode every character.
"""

import contextlib
import errno
import io
import os
import pwd
import sys

from virtfs.cli.denied import why_denied, why_not_made
from virtfs.cli.shell_mark import remedy
from virtfs.cli.unstarted import TOO_MANY
from virtfs.core.quoting import one_line

# getcwd(2) fails with ENOTCONN, and the error names no file.
_LEFT = 'the working directory belongs to a mount that has ended: if it is mounted again, enter it with cd "$PWD"'


def settle() -> None:
    """Open closed standard streams, and ensure that the program runs with UTF-8 names and paths.

    A program may start with descriptor 1 closed, as in `virtfs mount DIR 1>&-`. The next file that it opens, perhaps
    /dev/fuse, would get this number, and print() would write to it. So a closed standard stream becomes /dev/null.

    In a locale that does not use UTF-8, such as LC_ALL=tr_TR.ISO-8859-9, Python decodes arguments and paths with the
    locale's encoding, which cannot express every name. In such a locale, this function re-executes the program in
    Python's UTF-8 mode (-X utf8, PEP 540), and does not return.
    """
    _open_descriptors()
    _use_utf8()
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


def name_caller() -> None:
    """Set USER and LOGNAME to the name of the user who calls, unless they are set, for programs in a user namespace.

    There every caller has uid 0. Programs that look up a name, such as getpass.getuser() in Python, would find root and
    mistake the files of this user for those of root. A user without a name gets the number.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or name
    for variable in ("USER", "LOGNAME"):
        if not os.environ.get(variable):
            os.environ[variable] = name


def complain(program: str, sentence: str) -> None:
    """Print an error message to standard error. A failure to print it, for example to a full disk, is ignored."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{program}: {one_line(sentence)}", file=sys.stderr, flush=True)


def sentence_of(error: OSError) -> str:
    """Return the error message for an OSError that is not a VirtError.

    If the working directory has been deleted, the message says only that. If the kernel has denied access to a file of
    a virtfs mount, or a new file in it, the message says why. If the server of a mount has ended, it has the remedy. If
    no process could be started, it names the limit.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory has been deleted: change to another directory, and repeat the command"
    except OSError:
        pass
    reason = error.strerror or str(error)
    if error.errno == errno.EAGAIN and reason == os.strerror(errno.EAGAIN):  # of fork(2); print() has other words
        return f"{reason}: {TOO_MANY}"
    if not isinstance(error.filename, str | bytes):
        return _LEFT if error.errno == errno.ENOTCONN else reason
    name = os.fsdecode(error.filename)
    why = why_not_made(name) if error.errno in (errno.EACCES, errno.EPERM) else ""
    if not why and error.errno == errno.EACCES:
        why = why_denied(name)
    if error.errno == errno.ENOTCONN:
        why = remedy(name)
    return f'"{name}": {reason}: {why}' if why else f'"{name}": {reason}'


def _open_descriptors() -> None:
    # open(2) returns the lowest free number. If /dev/null cannot be opened, the streams stay closed.
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)


def _use_utf8() -> None:
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    # os.execv() encodes the arguments with the codec that Python used to decode them, so their bytes are unchanged.
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _stream(stream: object, number: int) -> io.TextIOWrapper:
    """Return a standard stream that accepts every character, whatever PYTHONIOENCODING says."""
    if not isinstance(stream, io.TextIOWrapper):  # None if the descriptor was closed
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", line_buffering=True)
    with contextlib.suppress(OSError):  # for example when it flushes earlier output to a full disk
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream
