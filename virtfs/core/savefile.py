"""Reading a capture file that comes in pieces: pcap or pcapng, cut anywhere.

Whoever has the file tells us its bytes and gets its frames; nothing is read here. What is incomplete waits
for the next piece. No more is ever kept than the longest piece and one incomplete block, of 16 MiB at most.
"""

from collections.abc import Callable, Iterator
from errno import EINVAL
from typing import TypeVar

from virtfs.core.errors import VirtError
from virtfs.core.savefile_pcap import Pcap
from virtfs.core.savefile_pcapng import Pcapng
from virtfs.core.savefile_records import Format
from virtfs.core.savefile_records import Record as Record
from virtfs.core.savefile_records import Run as Run

T = TypeVar("T")

WINDOW = 96 << 10  # bytes that are decoded at once: malloc(3) has fresh pages mapped for 128 KiB and more

_KUZNETZOV = "is pcap with Kuznetzov's longer heads, not read here: editcap -F pcap OLD NEW makes a plain one"
_OTHERS = {  # what people try, and what to do instead
    b"\xa1\xb2\xcd\x34": _KUZNETZOV,
    b"\x34\xcd\xb2\xa1": _KUZNETZOV,
    b"\x1f\x8b": "is a file compressed by gzip: zcat unpacks it",
    b"\x28\xb5\x2f\xfd": "is a file compressed by zstd: zstdcat unpacks it",
    b"snoo": "is a file of snoop's: editcap -F pcap OLD NEW makes a pcap",
}


class Reader:
    """One capture file, from its beginning.

    A frame that the capture cut (snaplen) is handed out as cut, which is what tcpreplay sends: nobody knows
    the rest, and a replay without the frame would lack even more. Record.original_length tells. A frame check
    sequence (FCS) that the file announces is left out, as far as it was captured.
    """

    def __init__(self) -> None:
        self._room = bytearray()  # it grows and is used again: fresh memory costs more than what is done with it
        self._begin = self._end = 0  # in there: what is not done with
        self._offset = 0  # of its first byte in the file
        self._written_at = 0  # where in the file the last piece begins
        self._format: Format | None = None
        self._broken: VirtError | None = None
        self._short = False  # of a whole record, or of a whole block

    def feed(self, data: bytes | memoryview) -> Iterator[Record]:
        """The records that this piece of the file completes, in order. The data is taken at once.

        The iterator is good until the next call of anything here. A record is done with when the iterator is
        asked for the one after it; what it was not asked for comes first the next time.
        Errors: EINVAL for what is no capture of Ethernet frames, raised by the iterator after the last good
        record. The sentence names the byte of the file where the broken block or record begins. From then on
        feed() raises the same.
        """
        self._take(data)
        return self._decoded(lambda format, data: format.records(data))

    def feed_frames(
        self, data: bytes | memoryview, longest_run: Callable[[], int] = lambda: 1
    ) -> Iterator[bytes | Run]:
        """As `feed`, where nobody asks for more of the records than their frames.

        longest_run: how many frames a Run may have, asked for each. A run is done with as a whole.
        """
        self._take(data)
        return self._decoded(lambda format, data: format.frames(data, longest_run))

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

    def _waiting(self) -> int:
        return self._end - self._begin

    def give_back(self) -> int:
        """Forget what of the last piece is not done with, and say how many of its bytes are.

        For a write(2) that a signal ends: it returns that number, or EINTR if it is 0, and the program writes
        the rest again.
        """
        self._trim()
        done = self._offset - self._written_at  # negative: what is next began in an earlier piece
        self._end = self._begin + max(-done, 0)
        if self._format:
            self._format.needed = 0
        return max(done, 0)

    def refuse(self, error: VirtError) -> VirtError:
        """Treat the record that was handed out last as broken; return the error, with the byte where that begins.

        From then on feed() raises the same.
        """
        self._trim()
        self._end = self._begin
        self._broken = VirtError(error.errno, f"byte {self._offset}: {error.strerror}")
        return self._broken

    def finish(self) -> None:
        """The file ends here. EINVAL if that is within a block or a record; an empty file is no error.

        Records that nobody has asked for are no error either.
        """
        self._trim()
        if self._short and self._waiting():
            rest = f"the file ends within what begins here, after {self._waiting()} bytes"
            raise VirtError(EINVAL, f"byte {self._offset}: {rest}")

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
        """What is not done with, or the beginning of it."""
        with memoryview(self._room) as room:
            return bytes(room[self._begin : min(self._begin + most, self._end)])

    def _recognise(self) -> None:
        """Choose the format by the file's beginning, once there is enough of it."""
        magic = self._next(4)
        if len(magic) < 4:
            return
        if magic == Pcapng.MAGIC:
            self._format = Pcapng()
        elif magic not in Pcap.MAGICS:
            other = _OTHERS.get(magic) or _OTHERS.get(magic[:2]) or "begins neither a pcap nor a pcapng"
            raise VirtError(EINVAL, f'"{magic.hex()}" {other}')
        elif self._waiting() >= Pcap.HEAD:
            self._format = Pcap(self._next(Pcap.HEAD))
            self._trim()

    def _trim(self) -> None:
        """Let go of what the format is done with."""
        if self._format:
            self._begin += self._format.taken
            self._offset += self._format.taken
            self._format.taken = 0
