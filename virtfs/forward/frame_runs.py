"""Packets of equal length, prepared for writing into a tap.

Prepending a virtio_net_hdr to a frame and slicing the packet out of a buffer take a third as long as writing a small
packet. Capture files often have runs of frames of equal length. So a run is copied in one piece, including the record
headers between its frames. Then all virtio_net_hdrs are written at once, over these record headers. The slices are
reused if the next run has the same frame length and the same distance between frames.
"""

from virtfs.core.savefile import Run
from virtfs.host.tap_protocol import VNET_HEADER

ROOM = 256 << 10  # bytes; fits into a processor's private cache
RUN = 128  # maximum number of frames in one run


class Rows:
    """A buffer of ROOM bytes for one run of frames at a time."""

    def __init__(self) -> None:
        self._room = bytearray(ROOM)
        self._shape = (0, 0)  # frame length and stride, in bytes, of _packets
        self._packets: list[memoryview] = []

    def packets(self, run: Run) -> list[memoryview]:
        """Return the frames of a run, each preceded by a virtio_net_hdr of zeros.

        Return an empty list if the run is too large. The packets are valid until the next call.

        The run is copied into a buffer, and there the headers are written over the bytes before each frame. So at least
        VNET_HEADER bytes must precede each frame in the run. The run itself is not changed.
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
