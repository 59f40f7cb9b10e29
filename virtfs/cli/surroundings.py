"""Make the process independent of what its caller left behind: standard streams, locale, working directory.

Both programs call settle() first. Everything after it can rely on three things: descriptors 0 to 2 are open, names and
paths are UTF-8, and a sentence can always be printed.
"""

import contextlib
import io
import os
import sys

from virtfs.core.quoting import one_line


def settle() -> None:
    """Open the standard streams that the caller has closed, and run in Python's UTF-8 mode (PEP 540).

    A program may start with a closed descriptor 1, as in `virtfs mount DIR 1>&-`. The next file it opens, perhaps
    /dev/fuse, would get this number, and would be written to by print(). Such a stream becomes /dev/null.

    In another locale, such as LC_ALL=tr_TR.ISO-8859-9, Python decodes arguments and paths with the locale's encoding,
    which cannot express every name. So this function then starts the program again with -X utf8, and does not return.
    """
    _open_descriptors()
    _use_utf8()
    sys.stdout = _stream(sys.stdout, 1)
    sys.stderr = _stream(sys.stderr, 2)


def complain(program: str, sentence: str) -> None:
    """Print an error sentence. An error of standard error, such as a full disk, is ignored."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{program}: {one_line(sentence)}", file=sys.stderr, flush=True)


def sentence_of(error: OSError) -> str:
    """Return a sentence about an error that no other place has described."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory has been deleted: change to another directory, and repeat the command"
    except OSError:
        pass
    reason = error.strerror or str(error)
    return f'"{os.fsdecode(error.filename)}": {reason}' if isinstance(error.filename, str | bytes) else reason


def _open_descriptors() -> None:
    # open(2) returns the lowest free number. Without /dev/null the streams stay closed.
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)


def _use_utf8() -> None:
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    # Arguments are encoded as they were decoded, so the new program gets the same bytes.
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _stream(stream: object, number: int) -> io.TextIOWrapper:
    """Return a standard stream that accepts every character. PYTHONIOENCODING may have chosen another encoding."""
    if not isinstance(stream, io.TextIOWrapper):  # None if the descriptor was closed
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", line_buffering=True)
    with contextlib.suppress(OSError):  # for example from the flush of earlier output to a full disk
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream
