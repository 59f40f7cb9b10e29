"""Frames in a byte stream, in the format of the file `stream`.

A record consists of the length of a frame, as 4 bytes in network byte order, and the frame. This is the framing of
QEMU's `-netdev stream` and `-netdev socket`, of passt and of gvproxy.
"""

import struct
from errno import EINVAL

from virtfs.core.errors import VirtError

PREFIX = struct.Struct(">I")
FRAME_MAX = 65535 + 18  # bytes: the largest packet, with an Ethernet header and a VLAN tag


class Records:
    """Splits a byte stream into records. The stream arrives in pieces, which may end anywhere.

    offset: the position in the stream where the current record begins.
    """

    __slots__ = ("_kept", "offset")

    def __init__(self) -> None:
        self._kept = bytearray()
        self.offset = 0

    def first(self, data: memoryview) -> tuple[bytes | None, int]:
        """Complete an unfinished record with the beginning of `data`.

        Return two values: the record's frame, or None if the record is still unfinished; and the number of bytes of
        `data` that were used. If there is no unfinished record, return (None, 0).
        VirtError EINVAL: the record gives a length that no frame can have. The unfinished record is dropped.
        """
        kept = self._kept
        if not kept:
            return None, 0
        used = 0
        if len(kept) < PREFIX.size:
            used = min(PREFIX.size - len(kept), len(data))
            kept += data[:used]
            if len(kept) < PREFIX.size:
                return None, used
        size = PREFIX.size + self.length(kept, 0)
        more = min(size - len(kept), len(data) - used)
        kept += data[used : used + more]
        used += more
        if len(kept) < size:
            return None, used
        self._kept = bytearray()
        self.offset += size
        return bytes(kept[PREFIX.size :]), used

    def length(self, data: memoryview | bytearray, at: int) -> int:
        """Return the length of the frame whose record begins at `at`.

        VirtError EINVAL: no frame can have this length. The message gives the offset of the record in the stream.
        """
        (length,) = PREFIX.unpack_from(data, at)
        if 0 < length <= FRAME_MAX:
            return int(length)
        self.forget()
        raise VirtError(
            EINVAL,
            f'byte {self.offset}: invalid frame length "{length}" (1 to {FRAME_MAX}): each frame must be preceded by '
            "its length, as 4 bytes in network byte order",
        )

    def keep(self, data: memoryview) -> None:
        """Keep the beginning of a record until a later call to first() completes it.

        If the data contains the record's length, the caller must have checked it with length().
        """
        self._kept += data

    def unfinished(self) -> int:
        """Return how many bytes of an unfinished record are kept."""
        return len(self._kept)

    @property
    def position(self) -> int:
        """The number of bytes of the stream so far."""
        return self.offset + len(self._kept)

    def forget(self) -> None:
        """Drop the unfinished record."""
        self._kept = bytearray()
