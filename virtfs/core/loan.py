"""The messages for borrowing a tap through the socket behind `fd`, and the check of the user's rights.

A program sends one request, a JSON object, and gets one answer, another JSON object. See "FD" in virtfs(5).
"""

import errno
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import Gid, Uid, Unit
from virtfs.core.quoting import quoted
from virtfs.core.virt import Counters, Virt


class Traffic(NamedTuple):
    """The kernel's counters of a tap's frames and bytes.

    tx: sent by the host, and read from the tap. rx: written to the tap, and received by the host.
    """

    tx_frames: int = 0
    tx_bytes: int = 0
    rx_frames: int = 0
    rx_bytes: int = 0


class Meter:
    """Counts the frames that a program reads from and writes to a tap that it has borrowed.

    virtfs does not see these frames, so it computes their number from the kernel's counters.
    """

    def __init__(self, counters: Counters, before: Traffic) -> None:
        self._counters = counters
        self._before = before
        self._written = counters.tx_frames, counters.tx_bytes
        self.taken = 0  # frames that the program has read

    def update(self, now: Traffic) -> None:
        """Count the frames that have passed since the last call. now: the kernel's current counters."""
        before, counters = self._before, self._counters
        if now < before:  # the tap was re-created, so its counters restarted at 0
            before = Traffic()
        frames = now.tx_frames - before.tx_frames
        self.taken += frames
        counters.rx_frames += frames
        counters.rx_bytes += now.tx_bytes - before.tx_bytes
        # The kernel's counters include the frames that virtfs wrote into the tap. virtfs has already counted these.
        frames, size = self._written
        counters.tx_frames += max(0, now.rx_frames - before.rx_frames - (counters.tx_frames - frames))
        counters.tx_bytes += max(0, now.rx_bytes - before.rx_bytes - (counters.tx_bytes - size))
        self._before, self._written = now, (counters.tx_frames, counters.tx_bytes)


REQUEST = 4096  # maximum length of a request in bytes
HEADER = 10  # bytes; size of the struct virtio_net_hdr that precedes each frame of a tap (linux/virtio_net.h)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a tap.

    header: whether a virtio_net_hdr precedes each frame. lend: whether the program attaches to the tap itself, instead
    of getting a descriptor.
    """

    header: bool = True
    lend: bool = False


def parse_request(data: bytes) -> Request:
    """Parse a request. VirtError EINVAL: the message is not a request."""
    text = data.decode(errors="replace")
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or len(data) > REQUEST:
        raise VirtError(errno.EINVAL, f'{quoted(text[:80])} is not a JSON object such as {{"vnet_hdr":0}}')
    for key, value in request.items():
        _check(key, value)
    lend = request.get("lend", False)
    if lend and "vnet_hdr" in request:
        raise VirtError(errno.EINVAL, "vnet_hdr cannot be combined with lend: the program chooses vnet_hdr itself")
    return Request(request.get("vnet_hdr", HEADER) == HEADER, lend)


def _check(key: str, value: object) -> None:
    if key == "vnet_hdr":
        if type(value) is not int or value not in (0, HEADER):
            raise VirtError(errno.EINVAL, f"vnet_hdr: {quoted(json.dumps(value))} is neither 0 nor {HEADER}")
    elif key == "lend":
        if type(value) is not bool:
            raise VirtError(errno.EINVAL, f"lend: {quoted(json.dumps(value))} is neither true nor false")
    else:
        raise VirtError(errno.EINVAL, f"unknown key {quoted(key)}: the keys are vnet_hdr and lend")


def granted(virt: Virt, request: Request) -> bytes:
    """Return the answer to a request that succeeds."""
    answer = {"name": virt.name, "tap": virt.host.name, "address": virt.address.hex(":"), "mtu": virt.host.mtu}
    header = HEADER if request.header else 0
    return _message({**answer, **({"lend": True} if request.lend else {"vnet_hdr": header})})


def about(unit: Unit, failure: OSError | MemoryError) -> VirtError:
    """Return the failure of a request as a VirtError whose sentence begins with the path of the file `fd`."""
    error, path = refused(failure), f"virt{unit}/fd: "
    return error if error.strerror.startswith(path) else VirtError(error.errno, f"{path}{error.strerror}")


def refusal(error: VirtError) -> bytes:
    """Return the answer to a request that fails."""
    return _message({"errno": error.errno, "error": error.strerror})


def _message(answer: dict[str, object]) -> bytes:
    """Return an answer as JSON without blanks between its tokens, so that a program in C can search it for a key."""
    return json.dumps(answer, separators=(",", ":")).encode()


def check_rights(virt: Virt, uid: Uid, groups: Collection[Gid]) -> None:
    """Check that a user may borrow the tap, that is, may open `frame` for reading and writing. Root always may.

    groups: the primary and the supplementary groups of the user.
    VirtError: EACCES, the mode of the interface does not allow it; EPERM, antispoof is on, and a
    program with the tap could circumvent it.
    """
    if uid == 0:
        return
    shift = 6 if uid == virt.owner else 3 if virt.group in groups else 0
    if virt.mode >> shift & 0o6 != 0o6:
        raise VirtError(errno.EACCES, f"{virt.name}/fd: the mode {virt.mode:04o} does not let user {uid} use it")
    if virt.antispoof:
        raise VirtError(errno.EPERM, f"{virt.name}/fd: only root may use it while antispoof is on")
