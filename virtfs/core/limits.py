"""What one mount allows at most; said once, when it is mounted (`virtfs mount -o max_virts=…`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Maxima of one mount, so that a user with one interface cannot take the machine's memory.

    virts: interfaces that may exist at a time; one more is ENOSPC, or EMFILE.
    queue: what `queue N` may ask for, in frames; more is ERANGE.
    backlog: what `backlog N` may ask for, in frames; more is ERANGE.
    history: what `history SIZE` may ask for, in bytes; more is ERANGE.
    capture: bytes that wait for one reader of a pcap at most; what comes beyond that it misses.
    """

    virts: int = 4096
    queue: int = 65536
    backlog: int = 65536
    history: int = 64 << 20
    capture: int = 8 << 20
