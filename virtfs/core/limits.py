"""The limits of one mount, set by mount options (`virtfs mount -o max_virts=…`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Maxima of one mount, so that a user with one interface cannot use up the machine's memory.

    virts: maximum number of interfaces; creating one more fails with ENOSPC, or EMFILE.
    queue: maximum of `queue N`, in frames; a larger value is ERANGE.
    backlog: maximum of `backlog N`, in frames; a larger value is ERANGE.
    history: maximum of `history SIZE`, in bytes; a larger value is ERANGE.
    capture: bytes that wait for one reader of a pcap; it misses the frames beyond that.
    """

    virts: int = 4096
    queue: int = 65536
    backlog: int = 65536
    history: int = 64 << 20
    capture: int = 8 << 20
