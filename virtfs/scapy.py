"""A socket for scapy over a frame file.

    from scapy.layers.l2 import ARP, Ether
    from virtfs.scapy import VirtSocket

    with VirtSocket("/mnt/virt/virt3") as wire:
        answer = wire.srp1(Ether(src="02:00:00:00:00:06", dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.3.1"), timeout=5)

The program is the other end of the wire, so scapy needs neither root nor a raw socket. This module needs scapy, which
virtfs does not install.
"""

import os
import sys
import time
from pathlib import Path

from virtfs.client.port import ROOM, Mode, Port
from virtfs.client.virt import Virt

try:
    from scapy.layers.l2 import Ether
    from scapy.packet import Packet
    from scapy.supersocket import SuperSocket
except ModuleNotFoundError as error:
    # A checkout's .venv may belong to another user, who has no name in the user namespace of a virtfs shell.
    who = "" if os.access(sys.prefix, os.W_OK) else f"as the owner of {sys.prefix}, "
    sentence = f"virtfs.scapy needs scapy 2.5 or newer: {who}run `{sys.executable} -m pip install scapy`"
    raise ImportError(sentence, name="scapy") from error

__all__ = ["VirtSocket"]


class VirtSocket(SuperSocket):
    """A frame file as a SuperSocket of scapy, which sends and receives frames with an Ethernet header.

    Everything that scapy does with an open socket works: the methods send, recv, sniff, sr, sr1, srp, srp1 and am, the
    arguments `opened_socket` of sniff and AsyncSniffer and `socket` of sendp, and select() beside other sockets.
    Threads may send and receive at the same time. Do not call close() while another thread uses the socket.

    virt: a virtfs.Virt, the path of its directory, or the path of a file of frames.
    mode: "r", "w" or "rw", for receiving, sending or both.
    OSError: as for virtfs.Port.

    >>> who_has = Ether(src="02:00:00:00:00:06", dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.3.1")
    >>> with VirtSocket(v) as wire:
    ...     wire.srp1(who_has, timeout=5, verbose=False)[ARP].psrc
    '10.0.3.1'
    """

    desc = "frames of a virt"

    def __init__(self, virt: "Virt | str | os.PathLike[str]", mode: Mode = "rw") -> None:
        if not isinstance(virt, Virt | str | os.PathLike):
            raise TypeError(f"{virt!r} is neither a Virt nor a path; of a host of the lab, give its attribute virt")
        path = virt.path if isinstance(virt, Virt) else Path(virt)
        self.port = Port(path / "frame" if path.is_dir() else path, mode)
        # SuperSocket calls only the methods fileno() and close() of these.
        self.ins = self.outs = self.port  # type: ignore[assignment]

    def recv_raw(self, x: int = ROOM) -> "tuple[type[Packet], bytes | None, float | None]":
        """Return the scapy class of the next frame, its bytes, and its time of arrival in seconds since 1970.

        Does not wait: the bytes are None if there is no frame, and recv() returns None. Another reader may take
        a frame that select() has reported. If this call then waited, scapy's time-outs would not work.
        x: the maximum number of bytes to return; the rest of a longer frame is lost. OSError: as for Port.recv().
        """
        try:
            return Ether, self.port.recv(timeout=0)[:x], time.time()
        except TimeoutError:
            return Ether, None, None

    def send(self, x: "Packet | bytes") -> int:
        """Send a frame, with its Ethernet header. Return its length in bytes. OSError: as for Port.send()."""
        frame = bytes(x)
        if isinstance(x, Packet):
            x.sent_time = time.time()
        self.port.send(frame)
        return len(frame)

    # scapy's functions srp and srp1 open a socket of their own. On an open socket of frames, sr does what srp would do.
    srp = SuperSocket.sr
    srp1 = SuperSocket.sr1
