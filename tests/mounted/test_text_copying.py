"""However a program copies a file, it gets the whole content, or an error after which it falls back to read(2)."""

import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from harness.forks import TESTS
from harness.places import DIR, finished
from harness.serving import Mount, Virt, frame
from harness.waiting import until

from . import ways

Way = Callable[[str, str, bool], bytes]

# The errors with which a way of copying may fail. Programs that copy in this way then fall back to read(2). For
# copy_file_range(2) to another file system the kernel itself returns EXDEV (fs/read_write.c); before Linux 5.19 it
# copies by splice.
REFUSED: dict[Way, set[int]] = {
    ways.by_splice: {errno.EINVAL},
    ways.by_sendfile: {errno.EINVAL},
    ways.by_copy_file_range: {errno.EINVAL, errno.EXDEV},
    ways.by_shared_mmap: {errno.ENODEV},
    ways.by_pread: {errno.ESPIPE},
    ways.by_preadv2: {errno.ESPIPE},
    ways.by_end: {errno.ESPIPE},
}
TEXTS = ["ctl", "help", "status.json", "metrics", "ifconfig", "version", "clients", "up", "stats/rx_dropped", "filter"]
OF_TEXT: set[Way] = {ways.by_copy_file_range, ways.by_shared_mmap}
# All opens share the page cache, so that it cannot be used for files that differ by open or by user.
OF_LAST_ERROR = OF_TEXT | {ways.by_splice, ways.by_sendfile}
OF_HISTORY = OF_LAST_ERROR
OF_STREAM: set[Way] = set(REFUSED)
# Before Linux 6.5, splice(2) reads from the file as read(2) does and succeeds.
_KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
OLDER: set[Way] = {ways.by_splice, ways.by_sendfile, ways.by_copy_file_range} if _KERNEL < (6, 5) else set()
BY_SIZE: set[Way] = {ways.by_size, ways.by_size_before}
MAPPED_NOT = [way for way in ways.WAYS if way is not ways.by_mmap]  # see test_what_cannot_be_mapped_ends_who_maps_it


def copied(mount: Mount, way: Way, path: str, refused: set[Way], after: str = "", stream: bool = False) -> bytes | None:
    """Return the content that a program gets in this way, or None if the way fails as it should.

    refused: the ways that must fail, except those in OLDER. after, stream: see mounted/ways.py.
    """
    try:
        got = mount.root.call(way, f"{DIR}/{path}", after and f"{DIR}/{after}", stream)
    except OSError as refusal:
        if way in refused and refusal.errno in REFUSED[way]:
            return None
        pytest.fail(f"{path} {way.__doc__}: {refusal}")
    assert way not in refused - OLDER, f"{path} {way.__doc__}: succeeded with {got!r}"
    return got


def test_texts(virt: Virt) -> None:
    virt.set("description a text")
    for name in TEXTS:
        path = name if virt.mount.exists(name) else f"{virt.name}/{name}"
        for way in ways.WAYS:
            want = steady(virt.mount.root.call(ways.by_read, f"{DIR}/{path}", "", False))
            got = copied(virt.mount, way, path, OF_TEXT)
            assert got is None or steady(got) == want, f"{path} {way.__doc__}"


def steady(text: bytes) -> bytes:
    """Return a text without the memory in use, which each open changes."""
    return text.partition(b'"memory": {')[0].partition(b"# HELP virtfs_memory")[0]


@pytest.mark.parametrize("way", [ways.by_splice, ways.by_sendfile, ways.by_uring])
def test_a_text_that_grows_when_it_is_opened(virt: Virt, way: Way) -> None:
    """The lookup measures the number that is known then. The open fetches the present one from the kernel."""
    virt.host_sends(*(frame(60, number) for number in range(12)))
    got = virt.mount.root.call(way, f"{DIR}/{virt.name}/stats/rx_dropped", "", False)
    assert got.decode() == virt.read("stats/rx_dropped") + "\n"
    assert int(got) >= 12


def test_a_text_that_differs_by_user(mount: Mount) -> None:
    mount.refused("echo nonsense >ctl")
    want = mount.sh("cat last_error").encode()
    other = mount.process(4001)
    for way in MAPPED_NOT:
        assert copied(mount, way, "last_error", OF_LAST_ERROR) in (None, want)
        if way not in OF_LAST_ERROR:
            assert other.call(way, f"{DIR}/last_error", "", False) == b"ok\n", way.__doc__


def test_history(virt: Virt) -> None:
    virt.set("history 1M")
    file = virt.open(os.O_WRONLY)
    for number in range(40):
        file.write(frame(1000, number))
    want = virt.mount.root.call(ways.by_read, f"{DIR}/{virt.name}/history", "", False)
    assert len(want) > 40_000
    for way in MAPPED_NOT:
        assert copied(virt.mount, way, f"{virt.name}/history", OF_HISTORY) in (None, want), way.__doc__


@pytest.mark.parametrize("name", ["frame", "hex", "stream", "pcap", "wait/up", "wait/reader", "events", "/pcap"])
def test_streams(virt: Virt, name: str) -> None:
    mount = virt.mount
    path = name.removeprefix("/") if name in ("events", "/pcap") else f"{virt.name}/{name}"
    after = f"{virt.name}/history" if name == "events" else ""
    virt.set("backlog 100 exclusive none")
    if name == "wait/reader":
        virt.open(os.O_RDONLY)
    for way in MAPPED_NOT:
        if virt.read("next") == "0":
            virt.host_sends(frame(60))
            virt.until("next", "60")
        got = copied(mount, way, path, OF_STREAM, after, stream=True)
        if got is None:
            assert virt.read("next") == "60", f"what failed has taken nothing: {way.__doc__}"
        elif name == "frame":
            assert got == frame(60)
        elif way in BY_SIZE:
            assert len(got) == 1
        elif name == "hex":
            assert bytes.fromhex(got.decode()) == frame(60)
        elif name == "stream":
            assert got == struct.pack(">I", 60) + frame(60)
        elif name == "events":
            assert b" open " in got
        else:
            assert got[:4] == b"\n\r\r\n" if name.endswith("pcap") else got == b"1\n"


@pytest.mark.parametrize("name", ["frame", "history", "last_error"])
def test_what_cannot_be_mapped_ends_who_maps_it(virt: Virt, name: str) -> None:
    """The kernel allows a private mapping of any FUSE file, and asks the server only at the first access."""
    path = name if name == "last_error" else f"{virt.name}/{name}"
    program = virt.mount.start(
        sys.executable, "-c", "import sys; from mounted import ways; ways.by_mmap(sys.argv[1], '', False)",
        f"{DIR}/{path}", stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    _, complaint = finished(program)
    assert program.returncode == -signal.SIGBUS, complaint


def test_a_text_is_never_cut(virt: Virt) -> None:
    """After a stat, splice(2) returns the text that was measured, although the counter has gained a digit since."""
    mount = virt.mount
    file = virt.open(os.O_WRONLY)
    for _ in range(9):
        file.write(frame())
    reader = mount.process()
    fd = reader.call(os.open, f"{DIR}/{virt.name}/stats/tx_frames", os.O_RDONLY)
    assert reader.call(os.fstat, fd).st_size == 2
    file.write(frame())
    target = reader.call(os.open, "/tmp", os.O_TMPFILE | os.O_RDWR)
    assert reader.call(os.sendfile, target, fd, 0, 100) == 2
    assert reader.call(os.pread, target, 100, 0) == b"9\n"
    assert reader.call(os.read, fd, 100) == b"10\n"  # a read(2) returns the current text
    assert reader.call(os.fstat, fd).st_size == 3
    assert reader.call(os.sendfile, target, fd, 0, 100) == 3
    assert reader.call(os.pread, target, 100, 2) == b"10\n"


@pytest.mark.parametrize("program", ["coreutils cat", "busybox cat", "cat", "pv -q"])
def test_programs_that_print(virt: Virt, program: str) -> None:
    """cat of uutils uses splice(2), cat of busybox sendfile(2), and GNU cat read(2)."""
    mount = virt.mount
    for path in ("ctl", "metrics", "last_error", f"{virt.name}/stats/rx_frames"):
        printed, read = mount.sh(f"{program} {path}"), mount.sh(f"cat {path}")
        assert steady(printed.encode()) == steady(read.encode())
        assert printed.endswith(read[-4:]), "it is not cut"
    virt.set("backlog 8")
    virt.host_sends(frame(100))
    until(lambda: virt.read("next") == "100", "the frame waits")
    printing = virt.mount.shell(f"exec {program} {virt.name}/hex", stdout=subprocess.PIPE)
    assert printing.stdout is not None
    assert bytes.fromhex(printing.stdout.readline()) == frame(100)
    printing.kill()
    printing.wait()
    following = virt.mount.shell(f"exec {program} events", stdout=subprocess.PIPE)
    until(lambda: "events" in mount.sh(f"ls -l /proc/{following.pid}/fd 2>/dev/null; true"), "events is open")
    mount.ctl("create 99 description an event")
    assert following.stdout is not None
    while "create virt99" not in (line := following.stdout.readline()):
        assert " close " in line, "the last program's descriptors may be closed a moment after its end"
    following.kill()


COPYING = [
    "cp ctl /mnt/copy",
    "coreutils cp ctl /mnt/copy",
    "busybox cp ctl /mnt/copy",
    "dd status=none if=ctl of=/mnt/copy iflag=direct",
    "tar -cf - ctl | tar -xOf - >/mnt/copy",
    "tar -S -cf - ctl | tar -xOf - >/mnt/copy",
    "busybox tar -cf - ctl | tar -xOf - >/mnt/copy",
    "rsync ctl /mnt/copy",
    "python3 -c \"import shutil; shutil.copyfile('ctl', '/mnt/copy')\"",
    "coreutils head -c 100000 ctl >/mnt/copy",
    "coreutils tail -c +1 ctl >/mnt/copy",
    "tail -c +1 ctl >/mnt/copy",
    "install ctl /mnt/copy",
]


def test_programs_that_copy(virt: Virt) -> None:
    virt.set("description one that is copied, and long enough: " + 150 * "x")
    mount = virt.mount
    mount.ctl("\n".join(f"create {unit} description {200 * 'y'}" for unit in range(200, 210)))
    size = len(mount.read("ctl")) + 1
    for program in COPYING:
        mount.sh(f"set -e -o pipefail; {program}; cmp ctl /mnt/copy; test $(wc -c </mnt/copy) = {size}; rm /mnt/copy")


def test_mtime_tells_that_a_text_is_another(virt: Virt) -> None:
    """Programs such as rsync copy a file only if its size or mtime has changed."""
    seen = []
    for mtu in ("1400", "1300"):
        virt.set(f"mtu {mtu}")
        seen += [virt.mount.sh(f"stat -c '%s %.9Y' {virt.name}/mtu") for _ in range(2)]
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[0].split()[0] == seen[2].split()[0]
    assert seen[0] != seen[2]


def test_over_http(virt: Virt) -> None:
    """http.server sends st_size as the length."""
    mount = virt.mount
    server = mount.shell("exec python3 -u -m http.server 8000 --bind 127.0.0.1", stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert "Serving" in server.stdout.readline()
    for path in ("ctl", "version", f"{virt.name}/mtu"):
        get = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/{path}').read().decode(), end='')"
        assert mount.sh(f'python3 -c "{get}"') == mount.sh(f"cat {path}")
    server.kill()
