"""A failed open leaves nothing behind: no line in `clients`, no reader count, no reference."""

import errno
import os
from collections.abc import Callable

import pytest
import trio
from harness.in_trio import in_trio, start_in
from harness.wires import frame_file, wire

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.files.device import DeviceFile, DeviceHandle, Opens
from virtfs.files.hexlines import Hex
from virtfs.files.inject import Inject
from virtfs.files.stream import Stream
from virtfs.forward.tasks import Start
from virtfs.forward.wire import Wire

USER = User(Uid(0), Gid(0), 1)


def silent(error: VirtError, user: User) -> None:
    """Ignore an error that would go to last_error."""


# For each file, a function that creates it, and the name of something that its handle needs and that can fail.
FILES: dict[str, tuple[Callable[[Wire, Opens, Start], DeviceFile], str]] = {
    "frame": (lambda wire, opens, start: frame_file(wire, opens), "virtfs.files.frame.FrameHandle"),
    "hex": (lambda wire, opens, start: Hex(frame_file(wire, opens), opens, silent), "virtfs.files.hexlines.Lines"),
    "stream": (
        lambda wire, opens, start: Stream(frame_file(wire, opens), opens, silent),
        "virtfs.files.stream.RecordWriter",
    ),
    "inject": (lambda wire, opens, start: Inject(wire, opens, start, silent), "virtfs.files.inject.Timer"),
}


def refuse(*args: object) -> None:
    """Fail as if the process had no free descriptor."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("name", FILES)
@in_trio
async def test_an_open_that_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, needs = FILES[name]
    with wire() as bench:
        async with trio.open_nursery() as nursery:
            told: list[str] = []
            opens = Opens(lambda event, handle: told.append(event))
            file = make(bench.wire, opens, start_in(nursery))
            flags = os.O_RDWR if file.takes and file.gives else os.O_WRONLY if file.takes else os.O_RDONLY
            with monkeypatch.context() as without:
                without.setattr(needs, refuse)
                with pytest.raises(OSError, match="Too many open files"):
                    file.admit(flags, USER)
            assert (list(opens), told, bench.wire.readers) == ([], [], 0)
            handle = file.admit(flags, USER)
            assert isinstance(handle, DeviceHandle)
            assert (list(opens), told) == ([handle], ["open"])
            handle.release()
            assert (list(opens), told) == ([], ["open", "close"])
