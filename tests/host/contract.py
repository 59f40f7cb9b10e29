"""Checks of the contract of a tap (virtfs.host.tap_protocol), for the real tap and the fake one."""

import errno
import os
import select
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from virtfs.core.errors import VirtError
from virtfs.host.bpf import Program
from virtfs.host.tap_protocol import NO_HEADER, OFFLOAD_ALL, OFFLOAD_NONE, VNET_HEADER, TapDevice

TO_HOST = bytes.fromhex("020000000001 020000000002 88b5") + b"to the host" * 5
_ACCEPT_ALL = Program("", struct.pack("HBBI", 0x06, 0, 0, 0x40000))  # ret #262144
TO_VIRT = bytes.fromhex("020000000002 020000000001 88b5") + b"to the far end" * 5


class Host(Protocol):
    """The host's end of a tap."""

    def send(self, frame: bytes) -> None: ...

    def receive(self) -> bytes:
        """Return the next frame from the tap. Raises BlockingIOError if there is none."""

    def vanish(self) -> None: ...


Make = Callable[[], AbstractContextManager[tuple[TapDevice, Host]]]


def check_tap(make: Make) -> None:
    """Check everything that TapDevice promises.

    make: creates a tap that is up and has an empty queue, and the host's end of it
    """
    for check in (_frames, _borders, _short_room, _empty_and_full, _whole_sizes, _knobs, _gone, _closed):
        with make() as (tap, host):
            check(tap, host)


def read(tap: TapDevice, room: int = 1 << 16) -> bytes:
    """Read a frame, as the forwarder does."""
    header, space = bytearray(VNET_HEADER), bytearray(room)
    count = os.readv(tap.fd, [header, space])
    return bytes(space[: count - VNET_HEADER])


def readable(tap: TapDevice) -> bool:
    """Return whether a frame waits."""
    return bool(select.select([tap.fd], [], [], 0)[0])


def write(tap: TapDevice, frame: bytes) -> None:
    assert os.writev(tap.fd, [NO_HEADER, frame]) == VNET_HEADER + len(frame)


def _frames(tap: TapDevice, host: Host) -> None:
    assert not readable(tap)
    host.send(TO_VIRT)
    assert readable(tap)
    assert read(tap) == TO_VIRT
    assert not readable(tap)
    write(tap, TO_HOST)
    assert host.receive() == TO_HOST


def _borders(tap: TapDevice, host: Host) -> None:
    frames = [TO_VIRT + bytes([number]) * number for number in range(20)]
    for frame in frames:
        host.send(frame)
    assert [read(tap) for _ in frames] == frames


def _short_room(tap: TapDevice, host: Host) -> None:
    """A frame longer than the buffer is truncated, the count covers the bytes read, and the next frame is intact."""
    host.send(TO_VIRT)
    host.send(TO_VIRT)
    header, room = bytearray(VNET_HEADER), bytearray(20)
    assert os.readv(tap.fd, [header, room]) == VNET_HEADER + 20
    assert room == TO_VIRT[:20]
    assert read(tap) == TO_VIRT


def _empty_and_full(tap: TapDevice, host: Host) -> None:
    with pytest.raises(BlockingIOError):
        read(tap)
    for _ in range(5000):
        try:
            host.send(TO_VIRT)
        except BlockingIOError:
            break
    assert read(tap) == TO_VIRT, "frames already in the queue are kept, frames that do not fit are lost"


def _whole_sizes(tap: TapDevice, host: Host) -> None:
    for size in (14, 60, 1514):
        frame = (TO_VIRT * 20)[:size]
        host.send(frame)
        assert read(tap) == frame
        frame = (TO_HOST * 20)[:size]
        write(tap, frame)
        assert host.receive() == frame


def _knobs(tap: TapDevice, host: Host) -> None:
    assert tap.made
    assert tap.alive()
    assert tap.fd >= 0
    assert tap.name().startswith("tap")
    os.close(tap.netns())
    for on in (False, True):
        tap.set_carrier(on)
    for on in (True, False):
        tap.set_persist(on)
    for flags in (OFFLOAD_ALL, OFFLOAD_NONE):
        tap.set_offload(flags)
    for program in (_ACCEPT_ALL, None, None):
        tap.set_filter(program)


def _gone(tap: TapDevice, host: Host) -> None:
    host.send(TO_VIRT)
    host.vanish()
    assert not tap.alive()
    _every_method_is_enxio(tap)
    outcomes = [_outcome(lambda: os.readv(tap.fd, [bytearray(VNET_HEADER), bytearray(2000)])) for _ in range(3)]
    assert outcomes[-1] not in (errno.EAGAIN, None), "after earlier frames, reads report an error or end of file"
    assert _outcome(lambda: os.writev(tap.fd, [NO_HEADER, TO_HOST])) not in (errno.EAGAIN, None)


def _outcome(call: Callable[[], int]) -> int | None:
    """Return the errno of a call, 0 for end of file, or None for a frame."""
    try:
        return None if call() else 0
    except OSError as failure:
        return failure.errno


def _closed(tap: TapDevice, host: Host) -> None:
    tap.close()
    assert tap.fd == -1
    tap.close()
    assert not tap.alive()
    _every_method_is_enxio(tap)


def _every_method_is_enxio(tap: TapDevice) -> None:
    calls: list[Callable[[], object]] = [
        tap.name,
        tap.netns,
        lambda: tap.set_carrier(True),
        lambda: tap.set_persist(False),
        lambda: tap.set_offload(OFFLOAD_NONE),
        lambda: tap.set_filter(None),
        lambda: tap.set_filter(_ACCEPT_ALL),
    ]
    for call in calls:
        with pytest.raises(VirtError) as caught:
            call()
        assert caught.value.errno == errno.ENXIO
