"""Actions of a user's program. These functions run in the agent's process."""

import os
import resource
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.places import DIR


def opens(path: str, flags: int) -> int:
    """Open and close a file of the mount. Returns 0 or the errno."""
    try:
        os.close(os.open(Path(DIR, path), flags))
    except OSError as refusal:
        return refusal.errno or -1
    return 0


def each_opens(tries: Iterable[tuple[str, int]]) -> list[int]:
    """Call opens() with each pair of path and flags, and return the results."""
    return [opens(path, flags) for path, flags in tries]


def says(path: str, line: str) -> int:
    """Open a ctl and write a line. Returns 0, or the errno of the call that fails."""
    try:
        fd = os.open(Path(DIR, path), os.O_WRONLY)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)
    except OSError as refusal:
        return refusal.errno or -1
    return 0


def more_files() -> None:
    """Raise the limit of open files of this program to the hard limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def until_refused(step: Callable[[int], int], times: int) -> tuple[int, int]:
    """Call a function with 0, 1, 2 ... Returns the number of calls that succeeded and the errno of the one that failed.

    The errno is 0 if all succeeded.
    """
    for number in range(times):
        try:
            step(number)
        except OSError as refusal:
            return number, refusal.errno or -1
    return times, 0


def holds_texts(path: str, times: int) -> tuple[int, int]:
    """Open a text many times and read each to its end. The files stay open. Returns as until_refused()."""

    def step(_: int) -> int:
        fd = os.open(Path(DIR, path), os.O_RDONLY)
        while os.read(fd, 1 << 16):
            pass
        return fd

    more_files()
    return until_refused(step, times)


def holds_opens(path: str, flags: int, times: int) -> tuple[int, int]:
    """Open a file or directory many times. The files stay open. Returns as until_refused()."""
    more_files()
    return until_refused(lambda _: os.open(Path(DIR, path), flags), times)


def holds_input(path: str, data: bytes, times: int) -> tuple[int, int]:
    """Open a file many times and write the same data to each. The files stay open. Returns as until_refused()."""

    def step(_: int) -> int:
        return os.write(os.open(Path(DIR, path), os.O_WRONLY), data)

    more_files()
    return until_refused(step, times)


def floods(path: str, length: int, times: int) -> None:
    """Write frames of one length to a frame file."""
    fd = os.open(Path(DIR, path), os.O_WRONLY)
    data = b"\xff" * 6 + b"\x02\0\0\0\0\1\x88\xb5" + bytes(length - 14)
    for _ in range(times):
        os.write(fd, data)
    os.close(fd)


def opens_between_floods(name: str, length: int, frames: int, times: int) -> tuple[int, int]:
    """Open history after each of several floods. The files stay open. Returns as until_refused()."""

    def step(_: int) -> int:
        floods(f"{name}/frame", length, frames)
        return os.open(Path(DIR, name, "history"), os.O_RDONLY)

    return until_refused(step, times)


def waits(path: str, files: int, each: int) -> int:
    """Wait in reads of a file: `each` threads for each of several opens. Returns the number of waiting threads."""
    more_files()
    threading.stack_size(1 << 16)
    begun, failed = threading.Semaphore(0), []

    def wait(fd: int) -> None:
        begun.release()
        try:
            os.read(fd, 8)
        except OSError as refusal:
            failed.append(refusal.errno)

    for _ in range(files):
        fd = os.open(Path(DIR, path), os.O_RDONLY)
        for _ in range(each):
            threading.Thread(target=wait, args=[fd], daemon=True).start()
            begun.acquire()
    return files * each - len(failed)


def reads(path: str) -> str:
    """Return the text of a file."""
    return Path(DIR, path).read_text()


def holds_block(path: str, head: bytes, length: int) -> tuple[int, int]:
    """Write the beginning of a long block to inject, in pieces of 1 MiB. The file stays open.

    Returns the number of bytes written and the errno of the write that failed, or 0.
    """
    fd = os.open(Path(DIR, path), os.O_WRONLY)
    written = os.write(fd, head)
    try:
        while written < length - (1 << 20):
            written += os.write(fd, bytes(1 << 20))
    except OSError as refusal:
        return written, refusal.errno or -1
    return written, 0
