"""A program that makes random system calls on every file of a mount, and prints how they ended as JSON.

Usage: python -m fuzz.storm DIR SEED CALLS. The keys of the output are "CALL ERRNO", the values are counts.

The program runs in namespaces of its own. Its commands never contain the verb netns, and it never writes to tap/netns:
the number of a process there would move a tap to the namespace of that process.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

from fuzz.corpus import corpus
from fuzz.mutate import mutate

PATIENCE = 1.0  # seconds; a call that waits longer is interrupted by SIGALRM
OPEN_AT_MOST = 64
_FLAGS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_SYNC)
_STATUS_FLAGS = (0, os.O_APPEND, os.O_DIRECT)
_NUMBERS = (0, 1, 2, 10, 4095, 4096, 65536, 1 << 20, (1 << 20) + 1, 2**31 - 1)
_COMMANDS = (
    *(b"ensure 3 up", b"ensure 5 up owner 4001 backlog 9", b"ensure bridge0 up", b"destroy 4", b"create"),
    *(b"destroy 3", b"virt5 -impair", b"virt5 pace 0 up"),
)
_OFFSETS = (0, 1, 10, 4096, 2**31, 2**40, 2**63 - 1)


class Storm:
    """The state of one run: the descriptors that are open, and the ends of all calls so far."""

    def __init__(self, directory: str, seed: str) -> None:
        self.directory = directory
        self.random = Random(seed)
        self.ends: Counter[str] = Counter()
        self.open: list[int] = []
        self._lines = [*corpus("ctl_line"), *corpus("verbs_line"), *corpus("hex_lines"), *corpus("capture_file")]
        self._values = [data[1:] for data in corpus("value")] + corpus("numbers")
        self._paths: list[str] = []
        self._pipe = os.pipe2(os.O_NONBLOCK)

    def run(self, calls: int) -> None:
        """Make calls."""
        for number in range(calls):
            if number % 500 == 0:
                self._walk()
            name, call = self.random.choice(_CALLS)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.1)
            try:
                call(self)
                end = "ok"
            except OSError as error:
                end = errno.errorcode.get(error.errno or 0, str(error.errno))
            except InterruptedError:
                end = "EINTR"
            except (ValueError, OverflowError, BufferError):  # refused by Python, not by the kernel
                end = "ok"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            self.ends[f"{name} {end}"] += 1

    def _walk(self) -> None:
        self._paths = [self.directory]
        for folder, folders, files in os.walk(self.directory):
            self._paths += [f"{folder}/{name}" for name in (*folders, *files)]

    def path(self) -> str:
        """Return an existing path, sometimes with something odd after it."""
        path = self.random.choice(self._paths)
        if self.random.random() < 0.05:
            path += self.random.choice(("x", "/x", "/..", "/" + "n" * 255, "/\udcff\x1b", "/virt4", "/ctl"))
        return path

    def fd(self) -> int:
        """Return an open descriptor of the mount."""
        if not self.open or self.random.random() < 0.2:
            self.add()
        return self.random.choice(self.open)

    def add(self) -> None:
        """Open a file, and close another one if many are open."""
        flags = self.random.choice(_FLAGS) | os.O_CLOEXEC
        # Without O_NONBLOCK nearly every read would wait.
        if self.random.random() < 0.99:
            flags |= os.O_NONBLOCK
        if self.random.random() < 0.05:
            flags |= self.random.choice((os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CREAT, os.O_EXCL | os.O_CREAT, os.O_PATH))
        self.open.append(os.open(self.path(), flags, 0o600))
        if len(self.open) > OPEN_AT_MOST:
            os.close(self.open.pop(self.random.randrange(len(self.open))))

    def data(self, fd: int) -> bytes:
        """Return what to write to a descriptor: a command, a value, a frame, a capture, or noise."""
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/tap/netns"):
            return b""
        match self.random.randrange(5):
            case 0:
                made = b"\n".join(mutate(self.random, self._lines) for _ in range(self.random.randrange(4)))
            case 1:
                made = mutate(self.random, self._values)
            case 2:
                made = b"\xff" * 6 + self.random.randbytes(self.random.randrange(2000))
            case 3:
                made = self.random.choice(self._lines) + b"\n"
            case _:
                made = self.random.randbytes(self.random.choice((1, 13, 14, 100, 1514, 9000)))
        return made.replace(b"netns", b"mtu")

    def number(self) -> int:
        """Return a size or another small number."""
        return self.random.choice(_NUMBERS)

    def offset(self) -> int:
        """Return a file offset."""
        return self.random.choice(_OFFSETS)


def _pwrite(storm: Storm) -> None:
    fd = storm.fd()
    os.pwrite(fd, storm.data(fd), storm.offset())


def _write(storm: Storm) -> None:
    fd = storm.fd()
    os.write(fd, storm.data(fd))


def _writev(storm: Storm) -> None:
    fd = storm.fd()
    os.writev(fd, [storm.data(fd)[: storm.number()] for _ in range(3)])


def _large_write(storm: Storm) -> None:
    fd = storm.fd()
    os.write(fd, storm.data(fd) * 1000)


def _mmap(storm: Storm) -> None:
    how = storm.random.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
    protection = storm.random.choice((mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE))
    mmap.mmap(storm.fd(), 4096, flags=how, prot=protection).close()


def _ioctl(storm: Storm) -> None:
    known = int.from_bytes(storm.random.choice(corpus("ioctl"))[:4], "little")
    command = storm.random.choice((known, storm.random.randrange(2**32), 0x541B, 0x5421, 0x80087601))
    fcntl.ioctl(storm.fd(), command, storm.random.randbytes(storm.random.choice((4, 40, 1000))))


def _poll(storm: Storm) -> None:
    poll = select.poll()
    for _ in range(3):
        poll.register(storm.fd(), storm.random.randrange(64))
    poll.poll(0)


def _epoll(storm: Storm) -> None:
    with select.epoll() as epoll:
        for fd in {storm.fd() for _ in range(3)}:
            epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        epoll.poll(0)


def _lock(storm: Storm) -> None:
    fcntl.flock(storm.fd(), fcntl.LOCK_NB | storm.random.choice((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN)))


def _drain(storm: Storm) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(storm._pipe[0], 1 << 16)


def _splice(storm: Storm) -> None:
    _drain(storm)
    os.splice(storm.fd(), storm._pipe[1], 4096, flags=os.SPLICE_F_NONBLOCK)


def _create(storm: Storm) -> None:
    fd = os.open(f"{storm.directory}/ctl", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, storm.random.choice(_COMMANDS))
    finally:
        os.close(fd)


def _close(storm: Storm) -> None:
    fd = storm.fd()
    storm.open.remove(fd)
    os.close(fd)


def _xattr(storm: Storm) -> None:
    name = storm.random.choice(("user.x", "security.capability", "trusted.y", "x"))
    storm.random.choice((lambda path: os.getxattr(path, name), lambda path: os.setxattr(path, name, b"v"), os.listxattr,
                         lambda path: os.removexattr(path, name)))(storm.path())  # fmt: skip


_Call = Callable[[Storm], Any]
_CALLS: list[tuple[str, _Call]] = [
    ("open", Storm.add),
    ("write", _write),
    ("write", _write),
    ("write", _write),
    ("pwrite", _pwrite),
    ("writev", _writev),
    ("large write", _large_write),
    ("read", lambda s: os.read(s.fd(), s.number() & 0x1FFFFF)),
    ("read", lambda s: os.read(s.fd(), 65536)),
    ("pread", lambda s: os.pread(s.fd(), s.number() & 0x1FFFFF, s.offset())),
    ("readv", lambda s: os.readv(s.fd(), [bytearray(1), bytearray(13), bytearray(9000)])),
    ("lseek", lambda s: os.lseek(s.fd(), s.offset(), s.random.randrange(5))),
    ("ioctl", _ioctl),
    ("mmap", _mmap),
    ("poll", _poll),
    ("epoll", _epoll),
    ("flock", _lock),
    ("splice", _splice),
    ("command", _create),
    ("xattr", _xattr),
    ("fstat", lambda s: os.fstat(s.fd())),
    ("fsync", lambda s: os.fsync(s.fd())),
    ("ftruncate", lambda s: os.ftruncate(s.fd(), s.number())),
    ("fallocate", lambda s: os.posix_fallocate(s.fd(), s.number(), 1 + s.number())),
    ("fadvise", lambda s: os.posix_fadvise(s.fd(), 0, s.number(), os.POSIX_FADV_DONTNEED)),
    ("sendfile", lambda s: os.sendfile(s.fd(), s.fd(), None, 4096)),
    ("copy_file_range", lambda s: os.copy_file_range(s.fd(), s.fd(), 4096)),
    (
        "setfl",
        lambda s: fcntl.fcntl(s.fd(), fcntl.F_SETFL, os.O_NONBLOCK | s.random.choice((0, os.O_APPEND, os.O_DIRECT))),
    ),
    ("close", _close),
    ("stat", lambda s: os.lstat(s.path())),
    ("access", lambda s: os.access(s.path(), s.random.randrange(8))),
    ("readlink", lambda s: os.readlink(s.path())),
    ("listdir", lambda s: os.listdir(s.path())),
    ("statvfs", lambda s: os.statvfs(s.path())),
    ("rename", lambda s: os.rename(s.path(), s.path())),
    ("link", lambda s: os.link(s.path(), s.path(), follow_symlinks=False)),
    ("symlink", lambda s: os.symlink("x", s.path() + "y")),
    ("mkdir", lambda s: os.mkdir(s.path() + "z")),
    ("rmdir", lambda s: os.rmdir(s.path())),
    ("unlink", lambda s: os.unlink(s.path())),
    ("mknod", lambda s: os.mknod(s.path() + "n", 0o600)),
    ("truncate", lambda s: os.truncate(s.path(), s.number())),
    ("chmod", lambda s: os.chmod(s.path(), s.random.randrange(0o10000))),
    ("chown", lambda s: os.chown(s.path(), s.random.choice((-1, 0, 4001, 2**31)), -1)),
    ("utime", lambda s: os.utime(s.path(), (0, 0))),
]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise InterruptedError(errno.EINTR, "the call has waited too long")


def main(arguments: list[str]) -> None:
    """Run the program."""
    signal.signal(signal.SIGALRM, _interrupt)
    directory, seed, calls = arguments
    storm = Storm(directory, seed)
    storm.run(int(calls))
    print(json.dumps(storm.ends))


if __name__ == "__main__":
    main(sys.argv[1:])
