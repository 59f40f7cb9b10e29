"""If a call to the kernel fails, or descriptors, threads or memory run out, only the current request fails.

A failed request leaves the state, the taps and the descriptors unchanged. The same request succeeds as soon as
resources are available again. doors.py has the failures, sweep.py the requests.
"""

import errno
import json
import os
import random
import resource
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing
from harness.in_trio import in_trio
from harness.nets import need_taps

from virtfs.cli.serving import within
from virtfs.core.errors import VirtError
from virtfs.core.limits import Limits
from virtfs.forward.tasks import FIRST, LONGEST, in_thread, lasting, surely_in_thread
from virtfs.host import descriptors

from .sweep import CASES, COMMAND, LIVES

TESTS = Path(__file__).parents[1]
SAMPLE = 3  # failures of each case
SEED = str(random.randrange(1 << 32))


@pytest.fixture(scope="module")
def swept() -> dict[str, tuple[int, int, list[str]]]:
    """Return, for each case, the number of calls, the number of failures tried and the faults found.

    `make sweep` tries all failures. Here, each run tries a few others, chosen by the seed.
    """
    need_taps()
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    pipe, names = subprocess.PIPE, [*CASES, *LIVES]
    sample = ("--sample", str(SAMPLE), SEED)
    halves = [
        subprocess.Popen((*COMMAND, *half, *sample), cwd=TESTS, env=environment, stdout=pipe, stderr=pipe, text=True)
        for half in (names[::2], names[1::2])
    ]
    results = []
    for half in halves:
        output, complaint = half.communicate()
        results += [json.loads(line) for line in output.splitlines()]
        assert half.returncode == 0, f"{results[-1:]}\n{complaint}"
    return {name: (calls, tried, wrong) for name, calls, tried, _errnos, wrong in results}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*CASES, *LIVES])
def test_each_call_to_the_kernel_fails(swept: dict[str, tuple[int, int, list[str]]], name: str) -> None:
    calls, tried, wrong = swept[name]
    assert calls > 0
    assert tried > 1
    assert not wrong, f"make sweep ARGS='\"{name}\" --sample {SAMPLE} {SEED}'\n" + "\n".join(wrong)


def test_no_line_mentions_a_tap_that_is_being_deleted() -> None:
    """Between two lines of a script, the tap of a destroyed interface may still be a member of its bridge."""
    need_taps()
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    program = (*COMMAND[:-1], "daemon.between_lines")
    told = subprocess.run(program, cwd=TESTS, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    whole, without_1, without_2 = json.loads(told)
    assert "bridge0 -learn tap2\n" in whole[0]
    for file, ctl in (without_1, without_2):
        assert file == ctl
        assert "create bridge0 up\n" in file
        assert "tap1" not in file
    assert "create 2" in without_1[0]
    assert without_2[0] == "# made: bridge0\ncreate bridge0 up\n"


@pytest.mark.parametrize("files", [64, 256, 1024, 4096, 1 << 20, 1 << 30])
def test_what_interfaces_leave_to_others(files: int) -> None:
    most = descriptors.interfaces(files)
    assert 0 < most * descriptors.OF_INTERFACE + descriptors.reserve(files) < files
    assert descriptors.reserve(files) >= 16


def test_max_virts_is_lowered_to_what_the_limit_allows(caplog: pytest.LogCaptureFixture) -> None:
    assert within(Limits(virts=7), 1024) == Limits(virts=7)
    assert not caplog.records
    lowered = within(Limits(virts=4096), 1024)
    assert lowered == Limits(virts=descriptors.interfaces(1024))
    assert caplog.messages == [
        f"max_virts is {lowered.virts} instead of 4096: only 1024 files may be open (RLIMIT_NOFILE)"
    ]
    with pytest.raises(VirtError) as caught:
        within(Limits(), 40)
    assert caught.value.errno == errno.EMFILE


def test_the_number_of_a_descriptor_tells_what_is_left() -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = os.open(os.devnull, os.O_RDONLY)
    descriptors.keep_spare(low)
    descriptors.keep_reserve(low)
    high = most - 1
    os.dup2(low, high)
    os.close(low)
    with pytest.raises(VirtError) as caught:
        descriptors.keep_spare(high)
    assert caught.value.errno == errno.EMFILE
    os.fstat(high)
    with pytest.raises(VirtError) as caught:
        descriptors.keep_reserve(high)
    assert (caught.value.errno, str(most) in caught.value.strerror) == (errno.EMFILE, True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(high)


def test_lasting_work_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    times: list[float] = []

    async def work() -> None:
        times.append(trio.current_time())
        if len(times) == 8:
            raise ZeroDivisionError
        if len(times) < 10:
            raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        with trio.fail_after(100):
            await lasting("work", work)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[0] == pytest.approx(FIRST)
    assert pauses == sorted(pauses)
    assert max(pauses) == pytest.approx(LONGEST)
    assert [record.message.split("; ")[0] for record in caplog.records] == [
        "work: [Errno 24] Too many open files",
        "work: ZeroDivisionError: ",
        "work: [Errno 24] Too many open files",
    ], "a repeated error is logged once"
    assert [bool(record.exc_info) for record in caplog.records] == [False, True, False]


@in_trio
async def test_threads_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    def broken() -> None:
        raise RuntimeError("broken")

    limiter, closed = trio.CapacityLimiter(1), []
    with pytest.raises(RuntimeError, match="broken"):
        await in_thread(broken)
    monkeypatch.setattr("trio._threads.start_thread_soon", refuse)
    with pytest.raises(VirtError) as caught:
        await in_thread(os.getpid, limiter=limiter)
    assert caught.value.errno == errno.ENOMEM
    await surely_in_thread(lambda: closed.append(1), limiter)
    assert (closed, limiter.borrowed_tokens) == ([1], 0)
