"""Remove frames from a pcapng stream that arrives in pieces.

The stream is one that core.pcapng has written: little-endian, each frame in an enhanced packet block.
"""

import errno
from collections.abc import Callable
from struct import Struct

from virtfs.core.errors import VirtError
from virtfs.core.pcapng import MARK_HEAD, PACKET

_KIND_AND_LENGTH = Struct("<II").unpack_from
_LENGTHS = Struct("<20xII").unpack_from  # two fields of a packet block: captured length, original length
_FRAME = 28  # offset of the frame in a packet block
_SMALLEST, _LARGEST = 12, 1 << 20  # minimum and maximum length of a block in bytes


class Sieve:
    """Passes all blocks of a stream except the frames that a filter rejects.

    Marks pass too, because they were never on the wire. accepts: the filter. Its arguments are the captured bytes of
    a frame and the frame's original length in bytes.
    """

    def __init__(self, accepts: Callable[[bytes, int], bool]) -> None:
        self._accepts = accepts
        self._rest = b""  # an incomplete block

    def feed(self, data: bytes) -> bytes:
        """Take the next piece of the stream, and return the blocks that pass.

        VirtError EINVAL: a block has an invalid length.
        """
        data, kept, at = self._rest + data, [], 0
        while len(data) - at >= _SMALLEST:
            kind, length = _KIND_AND_LENGTH(data, at)
            if not _SMALLEST <= length <= _LARGEST:
                raise VirtError(errno.EINVAL, f'"{length}" is not a valid block length in a capture')
            if length > len(data) - at:
                break
            block = data[at : at + length]
            if kind != PACKET or length < _FRAME or self._passes(block):
                kept.append(block)
            at += length
        self._rest = data[at:]
        return b"".join(kept)

    def _passes(self, block: bytes) -> bool:
        captured, original = _LENGTHS(block)
        frame = block[_FRAME : _FRAME + captured]
        return frame.startswith(MARK_HEAD) or self._accepts(frame, original)
