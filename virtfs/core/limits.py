"""The limits of one mount, set by mount options (`virtfs mount -o max_virts=…`)."""

from dataclasses import dataclass, replace

from virtfs.core.virt import QUEUE


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one mount. They keep a user who owns an interface from using up the machine's memory.

    virts: maximum number of interfaces. Creating one more fails with ENOSPC, or with EMFILE if RLIMIT_NOFILE does not
    allow that many.
    queue: maximum N of the verb `queue N`, in frames; a larger N fails with ERANGE.
    backlog: maximum N of the verb `backlog N`, in frames; a larger N fails with ERANGE.
    history: maximum SIZE of the verb `history SIZE`, in bytes; a larger SIZE fails with ERANGE.
    capture: maximum number of bytes that wait for one reader of a capture. The reader misses any further frames.
    memory: maximum number of bytes that all clients together can make the server hold (core.memory).
    user_memory: maximum number of bytes that one user other than root can make the server hold.
    """

    virts: int = 4096
    queue: int = 65536
    backlog: int = 65536
    history: int = 64 << 20
    capture: int = 8 << 20
    memory: int = 192 << 20
    user_memory: int = 64 << 20

    @property
    def new_queue(self) -> int:
        """The queue of a new interface, in frames."""
        return min(QUEUE, self.queue)

    def consistent(self) -> "Limits":
        """Return the limits, with `user_memory` lowered to `memory`, which no user can exceed."""
        return replace(self, user_memory=min(self.user_memory, self.memory))
