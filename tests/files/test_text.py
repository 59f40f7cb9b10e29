"""Text files without a mount."""

import errno

import pytest
import trio
from harness.in_trio import in_trio

from virtfs.core.errors import VirtError
from virtfs.core.ids import Gid, Uid, User
from virtfs.core.memory import Kind, Memory
from virtfs.files.node import ROOT
from virtfs.files.text import Text

USER = User(Uid(4001), Gid(4001), 1)


@in_trio
async def test_a_read_that_outlives_its_file_holds_no_memory() -> None:
    """A signal ends a read(2), and the program closes the file, while the server still asks the kernel."""
    asked, answer = trio.Event(), trio.Event()

    async def refresh() -> None:
        asked.set()
        await answer.wait()

    memory = Memory()
    handle = Text(ROOT, lambda user: "text\n", refresh=refresh).open(USER, memory)

    async def read() -> None:
        with pytest.raises(VirtError) as caught:
            await handle.renew()
        assert caught.value.errno == errno.EBADF

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await asked.wait()
        handle.release()
        answer.set()
    assert memory.left([Kind.CONTENTS]) == {}
