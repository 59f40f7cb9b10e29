"""Decode a capture file, pcap or pcapng, that arrives in pieces. A piece may begin and end anywhere in the file.

The caller passes the bytes of the file and gets the frames; this module does not read files. An incomplete record is
kept until the next piece. So a reader holds at most one incomplete block, of up to 16 MiB, and one piece.
"""

from collections.abc import Callable, Iterator
from errno import EINVAL
from typing import TypeVar

from virtfs.core.errors import VirtError, located
from virtfs.core.savefile_pcap import Pcap
from virtfs.core.savefile_pcapng import Pcapng
from virtfs.core.savefile_records import Format
from virtfs.core.savefile_records import Group as Group
from virtfs.core.savefile_records import Record as Record
from virtfs.core.savefile_records import Run as Run
from virtfs.core.savefile_records import Spans as Spans

T = TypeVar("T")

# Maximum number of bytes that are decoded at once, unless one record is longer. It is below 128 KiB, because malloc(3)
# would map fresh pages for a buffer of that size or more (mallopt(3), M_MMAP_THRESHOLD).
WINDOW = 96 << 10

_KUZNETZOV = "is pcap with Kuznetzov's extended record headers: convert it with editcap -F pcap OLD NEW"
_OTHERS = {  # formats that users are likely to try
    b"\xa1\xb2\xcd\x34": _KUZNETZOV,
    b"\x34\xcd\xb2\xa1": _KUZNETZOV,
    b"\x1f\x8b": "is a gzip file: decompress it with zcat",
    b"\x28\xb5\x2f\xfd": "is a zstd file: decompress it with zstdcat",
    b"snoo": "is a snoop file: convert it with editcap -F pcap OLD NEW",
}


class Reader:
    """A decoder of one capture file, from its beginning.

    A frame that the capture truncated to its snap length is returned truncated, as in tcpreplay. The missing
    bytes are unknown, and a replay without the frame would be even less complete. Record.original_length is the full
    length. If the file says that frames end with a frame check sequence (FCS), the captured part of the FCS is removed.
    """

    def __init__(self) -> None:
        self._room = bytearray()  # reused for every piece, because fresh memory takes more time than decoding
        self._begin = self._end = 0  # bounds of the pending bytes in _room
        self._offset = 0  # file offset of the first pending byte
        self._written_at = 0  # file offset of the last piece
        self._format: Format | None = None
        self._broken: VirtError | None = None
        self._short = False  # whether the pending bytes are an incomplete record or block

    def feed(self, data: bytes | memoryview) -> Iterator[Record]:
        """Store a piece of the file, and return an iterator over the records that this piece completes.

        The iterator is valid until the next call of any method. A record counts as consumed when the next one is
        requested. The iterator that the next call returns yields unconsumed records again.
        Errors: EINVAL if the file is not a capture of Ethernet frames. The iterator raises this error after the last
        good record. The error message contains the file offset of the broken block or record. All later calls of
        feed() raise the same error.
        """
        self._take(data)
        return self._decoded(lambda format, data: format.records(data))

    def feed_frames(self, data: bytes | memoryview, most: Callable[[], int] = lambda: 1) -> Iterator[Group]:
        """Do the same as feed(), but return an iterator over groups of frames instead of records.

        most: a function that returns the maximum number of frames in a group. It is called before each group.
        A group is consumed as a whole.
        """
        self._take(data)
        return self._decoded(lambda format, data: format.frames(data, most))

    def _take(self, data: bytes | memoryview) -> None:
        if self._broken:
            raise VirtError(self._broken.errno, self._broken.strerror)
        self._trim()
        room, rest = self._room, self._waiting()
        if self._begin:
            room[:rest] = room[self._begin : self._end]
        self._begin, self._end = 0, rest + len(data)
        self._written_at = self._offset + rest
        room += bytes(max(self._end - len(room), 0))
        room[rest : self._end] = data

    def memory(self, more: int) -> int:
        """Return the bytes of memory that the reader needs for a piece of `more` bytes.

        While a long block is decoded, there are two copies of it.
        """
        return 2 * max(len(self._room), self._waiting() + more)

    def _waiting(self) -> int:
        return self._end - self._begin

    def give_back(self) -> int:
        """Drop the unconsumed bytes of the last piece; return how many of its bytes were consumed.

        This is for a write(2) that a signal interrupts. The system call returns the number of consumed bytes, or fails
        with EINTR if the number is 0. The program then writes the remaining bytes again.
        """
        self._trim()
        # Negative if the pending record begins in an earlier piece.
        consumed = self._offset - self._written_at
        self._end = self._begin + max(-consumed, 0)
        if self._format:
            self._format.needed = 0
        return max(consumed, 0)

    def about_last(self, error: VirtError) -> VirtError:
        """Return an error of the frame that was returned last, with the file offset of its record.

        Unlike with refuse(), the next records can still be read. An error of the reader itself stays as it is.
        """
        if self._broken or self._format is None:
            return error
        return located(error, f"byte {self._offset + self._format.taken}")

    def refuse(self, error: VirtError) -> VirtError:
        """Treat the record that was returned last as broken.

        Return the error with the file offset of this record added. All later calls of feed() raise the same error.
        """
        self._trim()
        self._end = self._begin
        self._broken = VirtError(error.errno, f"byte {self._offset}: {error.strerror}")
        return VirtError(error.errno, self._broken.strerror)  # a copy: self._broken must not refer to a traceback

    def finish(self) -> None:
        """Check that the file may end here.

        Errors: EINVAL if the file ends inside a block or record. An empty file is not an error. Complete records that
        nobody has requested are not an error either.
        """
        self._trim()
        if self._short and self._waiting():
            sentence = f"the file is truncated {self._waiting()} bytes into the block or record that begins here"
            raise VirtError(EINVAL, f"byte {self._offset}: {sentence}")

    def _decoded(self, decoder: Callable[[Format, bytes], Iterator[T]]) -> Iterator[T]:
        self._short = False
        try:
            if self._format is None:
                self._recognise()
            while self._format and self._waiting() >= max(self._format.needed, 1):
                yield from decoder(self._format, self._next(max(self._format.needed, WINDOW)))
                self._trim()
        except VirtError as error:
            raise self.refuse(error) from None
        self._short = True

    def _next(self, most: int) -> bytes:
        """Return the pending bytes, at most `most` of them."""
        with memoryview(self._room) as room:
            return bytes(room[self._begin : min(self._begin + most, self._end)])

    def _recognise(self) -> None:
        """Choose the format from the first bytes of the file. Do nothing if too few bytes have arrived."""
        magic = self._next(4)
        if len(magic) < 4:
            return
        if magic == Pcapng.MAGIC:
            self._format = Pcapng()
        elif magic not in Pcap.MAGICS:
            other = _OTHERS.get(magic) or _OTHERS.get(magic[:2]) or "does not begin a pcap or pcapng file"
            raise VirtError(EINVAL, f'"{magic.hex()}" {other}')
        elif self._waiting() >= Pcap.HEAD:
            self._format = Pcap(self._next(Pcap.HEAD))
            self._trim()

    def _trim(self) -> None:
        """Drop the bytes that the format has consumed."""
        if self._format:
            self._begin += self._format.taken
            self._offset += self._format.taken
            self._format.taken = 0
