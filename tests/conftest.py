"""Rules for every test: a time limit, the order of files, and no unnoticed skip."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest
from harness import children, forks
from hypothesis import HealthCheck, settings

pytest_plugins = ["harness.fixtures", "harness.screens"]

LIMIT = 60.0  # seconds for a test and its fixtures, unless @pytest.mark.timeout(seconds) sets another limit
_AFTER = 10.0  # seconds from the time-out of a test to the SIGKILL of its child processes
_IN_CI = os.environ.get("CI") == "true"


# On a busy machine, generating or running an example may take any length of time, so there is no deadline. Examples
# differ from run to run, so that many runs with few examples find the same faults. The profile `thorough` takes hours.
for name, examples in (("busy", 50), ("quick", 15), ("thorough", 1000)):
    settings.register_profile(name, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=examples)


def pytest_configure(config: pytest.Config) -> None:
    children.accept_any_caller()
    children.private_mounts()
    children.devices_for_all()
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("busy")


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else LIMIT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with the slowest tests first. Otherwise a worker might begin one when all others are done."""
    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        longest[item.path] = max(longest[item.path], _limit(item))
    items.sort(key=lambda item: -longest[item.path])


def pytest_unconfigure() -> None:
    forks.end()


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> Generator[None]:
    """Dump all stacks and fail the test if it takes too long.

    A thread that waits for a hung server does not handle SIGALRM (fs/fuse/dev.c request_wait_answer). Therefore
    the test's child processes, including its servers, are killed a little later. The kernel then ends every wait
    for those servers.
    """
    seconds = _limit(request.node)

    def expired(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        pytest.fail(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    killer = threading.Timer(seconds + _AFTER, _kill_children, [os.getpid()])
    killer.daemon = True
    killer.start()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        killer.cancel()


def _kill_children(parent: int) -> None:
    """Kill the descendants of a process."""
    for kin in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, kin.read_text().split()):
            _kill_children(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _no_silent_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _no_silent_skip(report)


def _no_silent_skip(report: Report) -> Report:
    """With CI=true, turn a skip into a failure, unless the kernel lacks a feature."""
    if not (_IN_CI and report.skipped) or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith("kernel lacks"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report
