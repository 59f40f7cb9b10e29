"""Packets of one length, ready to be written into a tap one after the other.

To put a virtio_net_hdr before a frame and to slice the two out of a buffer takes a third of what writing a small packet
takes. A capture file often has many frames of one length in a row: they are copied together, with the heads of their
records between them, the headers are filled in for all at once, and the slices stay for the next run of that length.
"""

from virtfs.core.savefile import Run
from virtfs.host.tapdevice import VNET_HEADER

ROOM = 256 << 10  # bytes: it is to stay in a processor's own cache
RUN = 128  # frames of one run


class Rows:
    """Room for one run of frames at a time, ROOM bytes."""

    def __init__(self) -> None:
        self._room = bytearray(ROOM)
        self._shape = (0, 0)  # the length and the stride of
        self._packets: list[memoryview] = []

    def packets(self, run: Run) -> list[memoryview]:
        """The run's frames, each behind its virtio_net_hdr, valid until the next call; none if there is no room.

        Before each frame there must be as many bytes of something else as that header has.
        """
        data, begin, length, stride, frames = run
        size = (frames - 1) * stride + VNET_HEADER + length
        if size > ROOM or frames > RUN:
            return []
        begin -= VNET_HEADER
        room = self._room
        room[:size] = memoryview(data)[begin : begin + size]
        for place in range(VNET_HEADER):
            room[place:size:stride] = bytes(frames)
        if (length, stride) != self._shape:
            view, packet = memoryview(room), VNET_HEADER + length
            self._shape = length, stride
            self._packets = [view[at : at + packet] for at in range(0, min(ROOM - packet + 1, RUN * stride), stride)]
        return self._packets[:frames]
