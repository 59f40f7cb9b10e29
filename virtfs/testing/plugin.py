"""Fixtures for tests that need a network, and captures for failed tests. pytest loads this module in every run.

It imports the other modules only when a test uses a fixture, so that other test suites are not slowed down.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from virtfs.client.mount import Mount
    from virtfs.client.virt import Virt
    from virtfs.testing.captures import Recording
    from virtfs.testing.lab import Lab
    from virtfs.testing.netns import Netns
    from virtfs.testing.server import Server

T = TypeVar("T")

_KEPT: Final[pytest.StashKey[list[Recording]]] = pytest.StashKey()  # of interfaces that this test's end has destroyed
_BEGUN: Final[pytest.StashKey[float]] = pytest.StashKey()  # in seconds since 1970
_WARNED: Final[pytest.StashKey[bool]] = pytest.StashKey()
_SERVER: Final[pytest.StashKey[Server]] = pytest.StashKey()
# Modules whose functions the reports of failed tests leave out, except with --full-trace.
_OURS: Final = ("virtfs.client.", "virtfs.testing.", "virtfs.scapy", "virtfs.aio")
_PROPERTY: Final = "virtfs_capture"  # name of a property of a test's report, which JUnit's XML includes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the directory of the captures."""
    parser.getgroup("virtfs").addoption(
        "--virtfs-captures",
        metavar="DIR",
        help="directory for the last frames of each interface of a failed test, relative to the root directory "
        "(virtfs-captures)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Note when the run begins."""
    config.stash[_BEGUN] = time.time()


@pytest.fixture(scope="session")
def virtfs_mount(pytestconfig: pytest.Config) -> Iterator[Mount]:
    """A virtfs.Mount for this run, or for this worker of pytest-xdist. Its interfaces keep their last frames.

    The variable VIRTFS has its path, so that the programs that tests start use it, too.
    """
    from virtfs.testing.server import Server

    server = _made(Server)
    pytestconfig.stash[_SERVER] = server
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VIRTFS", str(server.net.path))
            yield server.net
    finally:
        _keep(pytestconfig, server.net)
        del pytestconfig.stash[_SERVER]
        server.end()


@pytest.fixture
def virt(virtfs_mount: Mount, pytestconfig: pytest.Config) -> Iterator[Virt]:
    """A fresh interface, up. It is destroyed after the test."""
    virt = virtfs_mount.create(up=True)
    yield virt
    _destroy(virt, pytestconfig)


@pytest.fixture
def _virtfs_netns() -> Iterator[Callable[[], Netns]]:
    """A function that makes network namespaces, which end after the test."""
    from virtfs.testing.netns import Netns

    made: list[Netns] = []

    def make() -> Netns:
        made.append(Netns())
        return made[-1]

    yield make
    for netns in made:
        netns.close()


@pytest.fixture
def netns(_virtfs_netns: Callable[[], Netns]) -> Netns:
    """A fresh network namespace. It ends after the test, with all programs in it."""
    return _made(_virtfs_netns)


@pytest.fixture
def lab(virtfs_mount: Mount, _virtfs_netns: Callable[[], Netns], pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Hosts in network namespaces of their own, and cables between them. They end after the test."""
    from virtfs.testing.lab import Lab

    lab = Lab(virtfs_mount, _virtfs_netns)
    yield lab
    for host in lab:
        _destroy(host.virt, pytestconfig)
    lab.remove_switches()


def _keep(config: pytest.Config, virts: Iterable[Virt]) -> None:
    """Keep the last frames of interfaces until the end of the test: the teardown of a fixture may fail."""
    from virtfs.testing.captures import record

    with suppress(OSError):  # the server has ended; the next command to it says so
        config.stash.setdefault(_KEPT, []).extend(record(virts))


def _destroy(virt: Virt, config: pytest.Config) -> None:
    """Destroy an interface, unless the test has already destroyed it, and keep its last frames."""
    from virtfs.testing.lab import destroy

    _keep(config, [virt])
    destroy(virt)


def _made(make: Callable[[], T]) -> T:
    """Make what a fixture needs. If the system refuses, for example without /dev/fuse, fail with one line."""
    try:
        return make()
    except OSError as refusal:
        sentence = refusal.strerror or str(refusal)
        if refusal.filename and sentence == os.strerror(refusal.errno or 0):  # without the name of the file
            sentence = f"{refusal.filename}: {sentence}"
    pytest.fail(sentence, pytrace=False)  # here, since pytest would also print an exception that is being handled


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remove the captures that earlier runs have saved for the test. Warn once if that is not possible.

    Mark the beginning of the test in the frames of interfaces that exist already.
    """
    if "virtfs_mount" in getattr(item, "fixturenames", ()):
        from virtfs.testing.captures import mark_of, remove

        directory = _directory(item.config)
        try:
            remove(item.nodeid, directory, before=item.config.stash[_BEGUN])
        except OSError as error:
            if not item.config.stash.get(_WARNED, False):
                item.config.stash[_WARNED] = True
                advice = "choose another directory with --virtfs-captures=DIR"
                _warn(item, f"captures of an earlier run cannot be removed: {error}: {advice}")
        server = item.config.stash.get(_SERVER, None)
        with suppress(OSError):  # the server has ended; the next command to it says so
            if server and len(server.net):
                server.net.mark(mark_of(item.nodeid))


def _warn(item: pytest.Item, sentence: str) -> None:
    """Issue a warning that never is an exception, as the test has done nothing wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", pytest.PytestWarning)
        item.warn(pytest.PytestWarning(sentence))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail with one line if the server has ended by itself, and start another for the next test."""
    server = item.config.stash.get(_SERVER, None)
    try:
        yield
    finally:
        if server and (fate := server.fate()):
            if _SERVER in item.config.stash:  # not after the last test
                server.restart()
            pytest.fail(fate, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Save the last frames of each interface when a test that uses the mount has failed."""
    if call.excinfo and {"virtfs_mount", "_virtfs_netns"}.intersection(getattr(item, "fixturenames", ())):
        _hide_ourselves()
    report = yield
    server = item.config.stash.get(_SERVER, None)
    kept = item.config.stash.get(_KEPT, [])
    if report.when == "teardown":
        item.config.stash[_KEPT] = []
    if report.failed and (server or kept) and "virtfs_mount" in getattr(item, "fixturenames", ()):
        from virtfs.testing.captures import record, save

        try:
            recordings = [*kept, *record(server.net)] if server else kept
            saved = save(recordings, item.nodeid, _directory(item.config))
            lines = [line for _, line in saved]
            properties: list[tuple[str, object]] = [(_PROPERTY, str(path)) for path, _ in saved if path]
            properties = [one for one in properties if one not in item.user_properties]
            report.user_properties += properties
            item.user_properties += properties  # JUnit's XML takes the properties from the test's last report
        except OSError as error:
            lines = [f"no captures: {(server and server.fate()) or error}"]
        if lines:
            report.sections.append(("virtfs: last frames", "\n".join(lines)))
        if server and (log := server.news()):
            report.sections.append(("virtfs: log of the server", log))
    return report


def _hide_ourselves() -> None:
    """Let pytest leave our functions out of the report, which then ends with the line of the test."""
    for name, module in [*sys.modules.items()]:
        if name.startswith(_OURS):
            vars(module)["__tracebackhide__"] = True


def _directory(config: pytest.Config) -> Path:
    given: str | None = config.getoption("--virtfs-captures")
    return config.rootpath / (given or "virtfs-captures")  # the same from all working directories, for addopts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the captures of all failed tests."""
    reports = [report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])]
    paths = [value for report in reports for name, value in getattr(report, "user_properties", []) if name == _PROPERTY]
    if paths:
        terminalreporter.section("virtfs: last frames of failed tests")
        for path in dict.fromkeys(paths):
            terminalreporter.line(str(path))
