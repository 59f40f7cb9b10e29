"""Calls that the kernel splits or shortens: each call still transfers one frame."""

import errno
import os
import resource
import subprocess

import pytest
from harness.places import finished
from harness.process import File, Process, fails
from harness.serving import Virt, frame

APPEND = os.O_RDWR | os.O_APPEND


def gather(fd: int, data: bytes, size: int) -> int:
    """writev(2) of many small buffers."""
    return os.writev(fd, [data[at : at + size] for at in range(0, len(data), size)])


def scatter(fd: int, count: int, size: int) -> bytes:
    """readv(2) into many small buffers."""
    buffers = [bytearray(size) for _ in range(count)]
    length = os.readv(fd, buffers)
    return b"".join(buffers)[:length]


def whole_then_gathered(fd: int, *frames: bytes) -> list[int]:
    """Write frames in one thread: the first from one buffer, the others from many."""
    return [os.write(fd, frames[0]), *(gather(fd, frame, 4) for frame in frames[1:])]


def limit(size: int) -> None:
    """Set the soft RLIMIT_FSIZE, in bytes, as `ulimit -f` does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("flags", [os.O_RDWR, APPEND])
def test_a_frame_of_many_buffers(virt: Virt, flags: int) -> None:
    file = virt.open(flags)
    for number in range(3):
        assert file.call(gather, frame(1200, number), 4) == 1200
        assert file.write(frame(1514, number)) == 1514
        assert file.call(gather, frame(300, number), 1) == 300
    assert [virt.host_gets() for _ in range(9)] == [
        frame(size, number) for number in range(3) for size in (1200, 1514, 300)
    ]
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (9, 0)


def test_many_buffers_after_whole_frames(virt: Virt) -> None:
    """The first such frame is cut and counted, because not every write is inspected. Its rest is not sent."""
    file = virt.open()
    sent = frame(1514, 1), frame(1200, 2), frame(1200, 3)
    assert file.call(whole_then_gathered, *sent) == [1514, 1200, 1200]
    assert [virt.host_gets() for _ in range(3)] == [frame(1514, 1), frame(1200, 2)[:1024], frame(1200, 3)]
    assert (virt.count("tx_frames"), virt.count("tx_dropped"), virt.count("tx_oversize")) == (3, 1, 1)


def test_another_program_on_the_same_descriptor(virt: Virt) -> None:
    """All commands of a shell share the descriptor of `exec 3<>frame`."""
    script = "import os; d = os.read(0, 2000); os.writev(3, [d[i:i+4] for i in range(0, 1200, 4)])"
    virt.mount.sh(
        f"xxd -r -p <<<{frame(1200, 5).hex()} >/mnt/one; exec 3<>{virt.name}/frame;"
        f"dd if=/mnt/one bs=1200 status=none >&3; python3 -c '{script}' </mnt/one"
    )
    assert [virt.host_gets(), virt.host_gets()] == [frame(1200, 5)] * 2


def test_strict_tells_the_writer_of_many_buffers(virt: Virt) -> None:
    virt.set("strict")
    file = virt.open()
    with fails(errno.EMSGSIZE):
        file.call(gather, frame(1600), 4)
    assert file.call(gather, frame(1400), 4) == 1400
    assert virt.host_gets() == frame(1400)
    assert virt.count("tx_frames") == 1


def test_many_buffers_get_one_frame_and_do_not_wait(virt: Virt) -> None:
    file = virt.open()
    sent = [frame(1200, 1), frame(1024, 2), frame(60, 3), frame(1514, 4)]
    virt.host_sends(*sent)
    for one in sent:
        assert file.call(scatter, 300, 4) == one[:1200]
    assert virt.count("rx_frames") == 4


@pytest.mark.parametrize("flags", [os.O_RDWR, APPEND])
def test_more_than_a_megabyte(virt: Virt, flags: int) -> None:
    file = virt.open(flags)
    for size in ((1 << 20) + 60, (2 << 20) + 100):
        assert file.write(bytes(size)) == size
        assert file.write(frame(60, 1)) == 60
    assert [virt.host_gets() for _ in range(2)] == [frame(60, 1)] * 2
    assert (virt.count("tx_frames"), virt.count("tx_oversize"), virt.count("tx_dropped")) == (2, 2, 2)


def test_appended_frames_past_a_megabyte(virt: Virt) -> None:
    """With O_APPEND the kernel passes a growing offset, which must not be taken for that of a later piece."""
    file = virt.open(APPEND)
    for number in range(800):
        file.write(frame(1514, number))
    assert virt.count("tx_frames") == 800


def limited(virt: Virt, size: int) -> tuple[Process, File]:
    """Return a program with that RLIMIT_FSIZE in bytes, and its frame file."""
    process = virt.mount.process()
    process.call(limit, size)
    return process, virt.open(os.O_RDWR, process)


@pytest.mark.parametrize("size", [100, 1024])
def test_a_file_size_limit(virt: Virt, size: int) -> None:
    """A frame that the kernel would cut is refused with an explanation, not sent as two frames."""
    _, file = limited(virt, size)
    assert file.write(frame(60)) == 60
    for number in range(2):
        with fails(errno.EFBIG):
            file.write(frame(1514, number))
        assert file.write(frame(size, number)) == size
    said = f"the frame has 1514 bytes, but the writer's RLIMIT_FSIZE is {size}: raise it (ulimit -f)"
    assert said in virt.mount.read("last_error")
    assert [virt.host_gets() for _ in range(3)] == [frame(60), frame(size, 0), frame(size, 1)]
    assert (virt.count("tx_frames"), virt.count("tx_dropped")) == (3, 0)


def test_a_shell_s_limit(virt: Virt) -> None:
    complaint = virt.mount.refused(
        f"head -c 1514 /dev/zero >/mnt/one; ulimit -f 1; exec dd if=/mnt/one of={virt.name}/frame bs=1514"
    )
    assert "File too large" in complaint
    assert virt.count("tx_frames") == 0


def test_a_limit_lets_streams_of_bytes_pass(virt: Virt) -> None:
    """A short write does no harm to them."""
    process = virt.mount.process()
    process.call(limit, 100)
    file = process.open(f"{virt.name}/hex", os.O_WRONLY)
    rest = f"{frame(1514).hex()}\n".encode()
    while rest:
        rest = rest[file.write(rest) :]
    assert virt.host_gets() == frame(1514)


def test_a_user_who_is_not_root(virt: Virt) -> None:
    virt.set("owner 1000")
    script = "import os, sys; d = os.read(0, 2000); os.writev(1, [d[i:i+4] for i in range(0, 1200, 4)])"
    program = virt.mount.shell(
        f"exec python3 -c '{script}' >{virt.name}/frame", uid=1000, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdin is not None
    os.write(program.stdin.fileno(), frame(1200))
    finished(program)
    assert virt.host_gets() == frame(1200)
