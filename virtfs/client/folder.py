"""Read and write the text files of a mount. If a write is refused, its error has the text of last_error."""

import os
from errno import EBUSY, EMSGSIZE, ENETDOWN, ENOBUFS, EPERM
from itertools import islice
from pathlib import Path
from typing import Final

_ROOM = 65536  # bytes; a read that returns fewer has reached the end of a text
_DEPTH = 3  # levels: a file such as virt3/wait/up is in the third directory from the mount point


# The errors of an open or a frame that come from virtfs, which then sets last_error. Others, such as EACCES, can come
# from the kernel, and last_error would be about an earlier call.
_TOLD: Final = (EBUSY, ENOBUFS, EMSGSIZE, ENETDOWN, EPERM)


class Missing(FileNotFoundError, KeyError):
    """No interface or counter has this name. It is an OSError as all errors of files, and a KeyError as in a dict."""


class Folder:
    """A directory of a mount.

    path: the directory. top: the mount point, which has the file last_error.
    """

    __slots__ = ("path", "top")

    def __init__(self, path: Path, top: Path) -> None:
        self.path = path
        self.top = top

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def read(self, file: str) -> str:
        """Return the text of a file of this directory, without the newline at its end.

        Use this for text files that have no attribute. OSError: the file cannot be read.

        >>> v.read("stats/rx_frames")
        '0'
        """
        return read_text(self.path / file).removesuffix("\n")

    def write(self, file: str, text: str) -> None:
        """Write a text to a file of this directory, with a newline at its end.

        OSError: virtfs refuses the text; `strerror` is the text of last_error. TypeError: it is not a text.

        >>> v.write("mtu", "1400")
        """
        write_text(self.path / file, text, self.top)


def read_text(path: Path) -> str:
    """Return the whole text of a file. The text is one snapshot, even if it takes several reads."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = [os.read(fd, _ROOM)]
        while len(pieces[-1]) == _ROOM:
            pieces.append(os.read(fd, _ROOM))
    except OSError as error:
        raise named(error, path) from None
    finally:
        os.close(fd)
    return b"".join(pieces).decode(errors="surrogateescape")


def write_text(path: Path, text: str, top: Path) -> None:
    """Write a text and a newline to a file in one write(2).

    If a signal with a handler interrupts the write, a ctl may have run only some of the lines. In that case,
    another write(2) writes the remaining lines.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a text: give one, with a newline between two lines")
    left = memoryview(f"{text}\n".encode(errors="surrogateescape"))
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError as error:
        raise explained(error, path, top) from None
    finally:
        os.close(fd)


def named(error: OSError, path: Path) -> OSError:
    """Return a copy of an error with the path of the file added. Errors from calls on a descriptor have no path."""
    return OSError(error.errno, error.strerror, str(path))


def explained(error: OSError, path: Path, top: Path) -> OSError:
    """Return the error of a write with the text of last_error as its message.

    The server keeps one last_error for each user. If it has refused another command of the same user since the write,
    the message is about that command.
    """
    try:
        sentence = read_text(top / "last_error").removesuffix("\n")
    except OSError:
        sentence = "ok"
    return OSError(error.errno, error.strerror if sentence == "ok" else sentence, str(path))


def told(error: OSError, path: Path) -> OSError:
    """Return the error of an open or a frame, with the text of last_error as its message if virtfs has set that.

    path: a file of a mount.
    """
    return about(error, path) if error.errno in _TOLD else named(error, path)


def about(error: OSError, path: Path) -> OSError:
    """Return the error of a call on a stream, with the text of last_error as its message if that is about the stream.

    path: a file of a mount. A sentence about a stream begins with its path, relative to the mount point.
    """
    absolute = path.absolute()
    for top in islice(absolute.parents, _DEPTH):
        try:
            sentence = read_text(top / "last_error").removesuffix("\n")
        except OSError:
            continue
        if sentence.startswith(str(absolute.relative_to(top))):
            return OSError(error.errno, sentence, str(path))
    return named(error, path)


def open_stream(path: str, flags: int) -> int:
    """Open a stream, as the opener of a FileIO. OSError: `strerror` is the text of last_error if virtfs refuses this.

    FileIO adds O_CREAT and O_TRUNC to the flags, which an existing stream does not need.
    """
    try:
        return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))
    except OSError as error:
        raise told(error, Path(path)) from None
