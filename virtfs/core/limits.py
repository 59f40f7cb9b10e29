"""What one mount allows at most; said once, when it is mounted (`virtfs mount -o max_virts=…`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Maxima of one mount, so that a user with one interface cannot take the machine's memory.

    virts: interfaces that may exist at a time; one more is ENOSPC.
    queue: what `queue N` may ask for, in frames; more is ERANGE.
    backlog: what `backlog N` may ask for, in frames; more is ERANGE.
    """

    virts: int = 4096
    queue: int = 65536
    backlog: int = 65536
