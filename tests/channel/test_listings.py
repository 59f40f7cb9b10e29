"""Directories with many names are read in several requests."""

import pytest
from harness.channels import channel
from harness.in_trio import in_trio

from virtfs.files.node import ROOT, Symlink
from virtfs.fuse import protocol as p
from virtfs.fuse.directories import AT_ONCE

MANY = 5 * AT_ONCE


@pytest.mark.parametrize(("opcode", "before"), [(p.FUSE_READDIR, 0), (p.FUSE_READDIRPLUS, p.fuse_entry_out.size)])
@in_trio
async def test_an_answer_has_few_names_however_large_the_buffer(opcode: int, before: int) -> None:
    names = [f"tap{number}" for number in range(MANY)]
    async with channel() as bench:
        bench.root.add({name: Symlink(ROOT, "frame") for name in names})
        fh = p.fuse_open_out.unpack((await bench.ask(p.FUSE_OPENDIR, 1, bytes(8))).body)[0]
        found: list[str] = []
        offset = 0
        while body := (await bench.ask(opcode, 1, p.fuse_read_in.pack(fh, offset, p.MAX_WRITE, 0, 0, 0, 0))).body:
            at, count = 0, 0
            while at < len(body):
                _, offset, length, _ = p.fuse_dirent.unpack_from(body, at + before)
                at += before + p.fuse_dirent.size
                found.append(body[at : at + length].decode())
                at += -(-length // 8) * 8
                count += 1
            assert count <= AT_ONCE
    assert sorted(found) == sorted([".", "..", *names])
