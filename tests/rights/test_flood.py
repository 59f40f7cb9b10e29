"""A flood of commands from one user does not delay others.

The kernel serializes writes to one file (fs/fuse/file.c fuse_direct_write_iter holds the inode's lock), so the flood
writes to many files.
"""

import errno
import os
from pathlib import Path

import pytest
from harness.process import File, Pending, fails
from harness.serving import Mount, Virts
from harness.waiting import until

ALICE, BOB = 4001, 4002
AT_A_TIME = 8
MTUS = [f"mtu {1400 + number % 2}\n" for number in range(500)]  # a script that runs for a while


def in_the_server(thread: int) -> bool:
    """Return whether a thread waits for the server's answer to a request."""
    return Path(f"/proc/{thread}/wchan").read_text() == "request_wait_answer"


def begin(files: list[File], script: str) -> list[Pending[int]]:
    """Start writing a script to all files at once."""
    return [file.process.begin(os.write, file.fd, script.encode()) for file in files]


@pytest.mark.timeout(180)
def test_eight_wait_a_ninth_is_busy_and_others_go_on(virts: Virts, mount: Mount) -> None:
    hers = [virts(f"owner {ALICE}") for _ in range(AT_A_TIME + 1)]
    his = virts(f"owner {BOB}")
    alice, bob = mount.process(ALICE), mount.process(BOB)
    files = [alice.open(f"{virt.name}/ctl", os.O_WRONLY) for virt in hers[1:]]
    more = [alice.open(f"{hers[0].name}/{name}", os.O_WRONLY) for name in ("ctl", "mtu", "description")]
    file = bob.open(f"{his.name}/ctl", os.O_WRONLY)
    writes = begin(files, "".join(MTUS))
    until(lambda: all(virt.read("mtu") != "1500" for virt in hers[1:]), "every script has begun")
    for busy, text in zip(more, ("up\n", "1400\n", "hello\n"), strict=True):
        with fails(errno.EBUSY):
            busy.write(text)
    with fails(errno.EBUSY):
        alice.call(os.chmod, f"/mnt/virt/{hers[0].name}/frame", 0o640)
    mount.ctl("create 700 up\nvirt700 mtu 1400\ndestroy 700")
    file.write("mtu 1300\nup\n")
    assert f"create {his.unit} " in mount.read("ctl")
    assert alice.call(os.listdir, "/mnt/virt")
    assert all(in_the_server(write.thread) for write in writes), "these operations have not waited for the flood"
    assert (his.read("mtu"), his.read("up")) == ("1300", "1")
    assert "waiting" in mount.sh("cat last_error", uid=ALICE)
    assert {write.result(120) for write in writes} == {len("".join(MTUS))}
    more[0].write("up\n")


def test_a_crowd(virts: Virts, mount: Mount) -> None:
    """Each script is carried out completely, or its write fails with EBUSY."""
    hers = [virts(f"owner {ALICE}") for _ in range(20)]
    alice = mount.process(ALICE)
    writes = begin([alice.open(f"{virt.name}/ctl", os.O_WRONLY) for virt in hers], "".join(MTUS[:60]))
    mount.ctl("create 700\ndestroy 700")
    answers = [_answer(write) for write in writes]
    assert set(answers) <= {0, errno.EBUSY}
    assert answers.count(0) >= AT_A_TIME
    for virt, answer in zip(hers, answers, strict=True):
        assert virt.read("mtu") == ("1500" if answer else "1401")


def test_roots_are_not_counted(virts: Virts, mount: Mount) -> None:
    """The limit does not apply to root."""
    files = [mount.root.open(f"{virts().name}/ctl", os.O_WRONLY) for _ in range(12)]
    assert {write.result(30) for write in begin(files, "".join(MTUS[:60]))} == {540}


def _answer(write: Pending[int]) -> int:
    try:
        write.result(30)
    except OSError as refusal:
        return refusal.errno or -1
    return 0
