"""Directories that have just been removed, but whose names the kernel may still have cached.

The kernel may keep the name of an interface for `attributes.MOMENT`. Nevertheless, a destroyed interface must be gone
at the next system call, and an interface created under the same name must be found. This works as follows.

- When a directory is removed, the kernel is made to forget its attributes (Answers.forget_attributes).
- A system call with a path through the directory, or to it, needs these attributes, if only to check the rights to
  search the directory (fs/fuse/dir.c fuse_permission). So the kernel sends a GETATTR. Only chown(2) and
  utimensat(2) of the directory itself send a SETATTR at once.
- The answer is ESTALE. The kernel then walks the whole path again with LOOKUP_REVAL, and looks up every name, cached
  or not (fs/namei.c filename_lookup and path_openat, fs/fuse/dir.c fuse_dentry_revalidate).

A second walk does not help if the path begins inside the directory (working directory, descriptor or bind mount).
Therefore the second request of the same thread gets the same answer as it would without this module.
"""

from time import monotonic

# Seconds. The kernel keeps a name for MOMENT after a LOOKUP, which may have been answered just before the removal.
LINGER = 1.0


class Removed:
    """The inode numbers of directories removed in the last LINGER seconds."""

    def __init__(self) -> None:
        # For each directory, the time of its removal, and the threads that got ESTALE. Ordered by this time.
        self._directories: dict[int, tuple[float, set[int]]] = {}

    def add(self, inode: int) -> None:
        """Record that a directory has been removed. Idempotent."""
        now = monotonic()
        self._expire(now)
        self._directories.setdefault(inode, (now, set()))

    def walked_to(self, inode: int, thread: int) -> bool:
        """Return whether a GETATTR or SETATTR must be answered with ESTALE, so that the kernel walks the path again.

        thread: the caller. All callers that the server cannot see have the id 0.
        """
        if not self._directories:
            return False
        self._expire(monotonic())
        if inode not in self._directories:
            return False
        _, told = self._directories[inode]
        if thread in told:
            told.discard(thread)
            return False
        if thread:
            told.add(thread)
        return True

    def _expire(self, now: float) -> None:
        while self._directories and next(iter(self._directories.values()))[0] < now - LINGER:
            del self._directories[next(iter(self._directories))]
