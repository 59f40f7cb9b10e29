"""Look up the thread that made a FUSE request, in proc(5) and with process_vm_readv(2). Tie a child to its parent."""

import ctypes
import errno
import os
import re
import resource
import signal
import struct
from collections.abc import Sequence
from typing import NamedTuple

from virtfs.host.libc import check, libc
from virtfs.host.textfiles import read_text

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Maximum number of times to check whether a running thread has gone to sleep. One check takes a few µs.
_LOOKS = 100
_VECTOR_MAX = 1024 * 16  # bytes; the size of an array of IOV_MAX (1024) struct iovec
_SETS = re.compile(r"^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt):\s+([0-9a-f]+)$", re.MULTILINE)

# The system calls that write, by number. The value is 0 for write and pwrite64. For writev, pwritev and pwritev2 it is
# the size of a word in struct iovec, in bytes. Sources: arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl;
# include/uapi/asm-generic/unistd.h. x86_64 has 64-bit and 32-bit calls, whose numbers do not overlap in this table.
_WRITES = {
    "x86_64": {1: 0, 18: 0, 20: 8, 296: 8, 328: 8, 4: 0, 181: 0, 146: 4, 334: 4, 379: 4},
    "aarch64": {64: 0, 68: 0, 66: 8, 70: 8, 287: 8},
    "riscv64": {64: 0, 68: 0, 66: 8, 70: 8, 287: 8},
}.get(os.uname().machine, {})


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_process_vm_readv = libc.process_vm_readv
_process_vm_readv.restype = ctypes.c_ssize_t
_process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.POINTER(_Iovec),
    ctypes.c_ulong,
    ctypes.POINTER(_Iovec),
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def process_of(thread: int) -> int:
    """Return the id of the process that a thread belongs to, as ps(1) shows it.

    If the thread is gone, return the id of the thread. FUSE reports thread ids, not process ids (fs/fuse/dev.c:
    pid_nr_ns(task_pid(current), …)).
    """
    try:
        status = read_text(f"/proc/{thread}/status")
    except OSError:
        return thread
    for line in status.splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return thread


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends (PR_SET_PDEATHSIG in prctl(2)).

    Call this in a child of the parent's main thread. The signal is for the end of the thread that has forked.
    parent: its process id.
    """
    check(libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), number)


def outlive_parent() -> None:
    """Undo end_with()."""
    check(libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0))


def exists(pid: int) -> bool:
    """Return whether there is a process with this id, even one that is a zombie."""
    return os.path.exists(f"/proc/{pid}")


def runs(pid: int) -> bool:
    """Return whether there is a process with this id that is not a zombie. Source: proc_pid_stat(5)."""
    try:
        _, _, fields = read_text(f"/proc/{pid}/stat").rpartition(")")  # the command before it may contain anything
    except OSError:
        return False
    return fields.split()[0] not in ("Z", "X")


def command_of(pid: int) -> str:
    """Return the command name of a process, "?" if it is gone or in another pid namespace.

    A process can choose any name of up to 15 bytes (prctl(2), PR_SET_NAME), so quote it before showing it.
    """
    try:
        return read_text(f"/proc/{pid}/comm").removesuffix("\n") or "?"
    except OSError:
        return "?"


def command_line_of(pid: int) -> str:
    """Return the command of a process with its arguments, and its command name if they cannot be read.

    The interpreter of a Python program and its options, and the directory of the program, are left out. A process can
    choose any text.
    """
    try:
        words = read_text(f"/proc/{pid}/cmdline").removesuffix("\0").split("\0")
    except OSError:
        words = []
    if words and os.path.basename(words[0]).startswith("python"):
        words = _program_of(words)
    return " ".join((os.path.basename(words[0]), *words[1:])) if any(words) else command_of(pid)


def _program_of(words: list[str]) -> list[str]:
    """Return the command line of a Python program without the interpreter, unless its program is not a file or module.

    words: as in `python -P -m virtfs mount` or `python -X utf8 script.py`.
    """
    at = 1
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "-m":
            return words[at + 1 :] or words
        if words[at] in ("-", "-c"):
            return words
        at += 2 if words[at] in ("-X", "-W") else 1
    return words[at:] or words


class Buffer(NamedTuple):
    """A range in the memory of another process. length: in bytes."""

    address: int
    length: int


def buffers_written(thread: int) -> list[Buffer]:
    """Return the buffers of the write(2) or writev(2) that a thread is blocked in, or [] if it is in another call.

    OSError: the call cannot be determined; EPERM and EACCES as for ptrace(2). Source: /proc/TID/syscall
    (proc_pid_syscall(5)). The file contains "running" until the thread has gone to sleep, so it is read repeatedly.
    """
    for _ in range(_LOOKS):
        words = read_text(f"/proc/{thread}/syscall").split()
        if words[0] != "running":
            break
        os.sched_yield()
    else:
        raise BlockingIOError(errno.EAGAIN, f"thread {thread} is running, not blocked in a call")
    word = _WRITES.get(int(words[0]))
    if word is None:
        return []
    address, count = int(words[2], 16), int(words[3], 16)
    if not word:
        return [Buffer(address, count)]
    vector = fetch(thread, [Buffer(address, count * 2 * word)], _VECTOR_MAX)
    return [Buffer(*pair) for pair in struct.iter_unpack("=QQ" if word == 8 else "=II", vector)]


def fetch(thread: int, buffers: Sequence[Buffer], most: int) -> bytes:
    """Return the contents of a thread's buffers, concatenated, at most `most` bytes.

    OSError: errors from process_vm_readv(2), and EFAULT if the buffers are only partly mapped.
    """
    size = min(sum(length for _, length in buffers), most)
    room = ctypes.create_string_buffer(size)
    local = _Iovec(ctypes.addressof(room), size)
    remote = (_Iovec * len(buffers))(*(_Iovec(*buffer) for buffer in buffers))
    if check(_process_vm_readv(thread, ctypes.byref(local), 1, remote, len(buffers), 0)) < size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    return room.raw


def file_size_limit(thread: int) -> int | None:
    """Return the RLIMIT_FSIZE of a thread in bytes, or None if it is unlimited or cannot be read."""
    try:
        limit, _ = resource.prlimit(thread, resource.RLIMIT_FSIZE)
    except (OSError, OverflowError):  # OverflowError: no thread has such an id
        return None
    return None if limit == resource.RLIM_INFINITY else limit


class Pending(NamedTuple):
    """The pending signals of a thread that are neither blocked nor ignored.

    caught: those with a handler. default: the others.
    """

    caught: frozenset[int]
    default: frozenset[int]


def pending_signals(thread: int) -> Pending | None:
    """Return the pending signals of a thread, or None if they cannot be determined. Source: proc_pid_status(5)."""
    try:
        status = read_text(f"/proc/{thread}/status")
    except OSError:
        return None
    sets = {key: int(value, 16) for key, value in _SETS.findall(status)}
    pending = (sets["SigPnd"] | sets["ShdPnd"]) & ~sets["SigBlk"] & ~sets["SigIgn"]
    return Pending(_numbers(pending & sets["SigCgt"]), _numbers(pending & ~sets["SigCgt"]))


def _numbers(bits: int) -> frozenset[int]:
    return frozenset(number for number in range(1, 65) if bits & 1 << number - 1)
