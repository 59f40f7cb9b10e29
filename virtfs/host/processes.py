"""Who is behind a number in a FUSE request: proc(5)."""

from pathlib import Path


def process_of(thread: int) -> int:
    """The process a thread belongs to, which is what ps(1) shows; the thread's own number when it is gone.

    FUSE tells the thread (fs/fuse/dev.c: pid_nr_ns(task_pid(current), …)).
    """
    try:
        status = Path(f"/proc/{thread}/status").read_text(errors="replace")
    except OSError:
        return thread
    for line in status.splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return thread


def command_of(pid: int) -> str:
    """The name of a process, "?" of one that is gone or in another pid namespace."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip() or "?"
    except OSError:
        return "?"
