"""Fixtures of the tests that drive real mounts with real tools.

mount: a virtfs shared by the tests of a module; it has no interfaces when a test begins. virt: a new interface of
`mount`. virts: makes interfaces of `mount`. alone: makes mounts for one test. lasting: makes mounts whose servers end
and start again. places, elsewhere: namespaces that stand for other machines. code: runs the tests of a module with the
compiled modules ("compiled") and without them ("Python").

The report of a failed test shows the server's log and stacks. A mount that hung is killed, and the next test gets a new
one.
"""

import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from weakref import WeakKeyDictionary

import pytest

from harness.lasting import Lasting, LastingOnes
from harness.places import Place
from harness.serving import Mount, Virt, Virts
from harness.waiting import Stuck

# Units are counted per mount, so that a unit is small enough to be part of an address.
_units: WeakKeyDictionary[Mount, Iterator[int]] = WeakKeyDictionary()


def _next_unit(mount: Mount) -> int:
    return next(_units.setdefault(mount, itertools.count(3)))


@pytest.fixture(params=["compiled", "Python"], scope="module")
def code(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which code does the work of the compiled modules: "compiled" or "Python"."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRTFS_COMPILED", "no" if name == "Python" else "yes")
        yield name


class Current:
    """The mount of a module. It is made when first used, and replaced after it has broken."""

    def __init__(self) -> None:
        self._mount: Mount | None = None
        self._wrong: list[str] = []

    def get(self) -> Mount:
        """Return a working mount."""
        if self._mount is not None and (self._mount.broken or self._mount.server.poll() is not None):
            self.end()
        if self._mount is None:
            self._mount = Mount()
        return self._mount

    def end(self) -> list[str]:
        """End the mount. Returns the faults of all mounts that this object has made."""
        if self._mount is not None:
            self._wrong += self._mount.stop()
            self._mount = None
        return self._wrong


class Alone:
    """Makes mounts and keeps a list of them."""

    def __init__(self) -> None:
        self.made: list[Mount] = []

    def __call__(self, options: str = "", before: Sequence[str] = (), lacks: str = "") -> Mount:
        """Make another mount. The arguments are those of Mount."""
        self.made.append(Mount(options, before, lacks))
        return self.made[-1]


@pytest.fixture(scope="module")
def _current() -> Iterator[Current]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for device in ("/dev/fuse", "/dev/net/tun"):
        if not os.access(device, os.R_OK | os.W_OK):
            pytest.skip(f"needs {device}")
    current = Current()
    yield current
    if wrong := current.end():
        pytest.fail("\n".join(wrong))


@pytest.fixture
def mount(_current: Current) -> Iterator[Mount]:
    """The module's mount."""
    mount = _current.get()
    yield mount
    try:
        mount.clean()
    except (Stuck, OSError):
        mount.broken = True
        raise


@pytest.fixture
def virt(mount: Mount) -> Virt:
    """A fresh interface, up."""
    return Virt(mount, _next_unit(mount))


@pytest.fixture
def virts(mount: Mount) -> Virts:
    """A function that makes interfaces with the given verbs."""

    def make(verbs: str = "up") -> Virt:
        return Virt(mount, _next_unit(mount), verbs)

    return make


@pytest.fixture
def alone(_current: Current) -> Iterator[Alone]:
    """A function that makes mounts for one test."""
    alone = Alone()
    yield alone
    wrong = [complaint for mount in alone.made for complaint in mount.stop()]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def lasting(alone: Alone) -> Iterator[LastingOnes]:
    """A function that makes mounts whose servers end and start again, for one test."""

    def make(options: str = "") -> Lasting:
        lasting = Lasting(options)
        alone.made.append(lasting)
        made.append(lasting)
        return lasting

    made: list[Lasting] = []
    yield make
    for one in made:
        one.clear()


@pytest.fixture
def places() -> Iterator[Callable[[], Place]]:
    """A function that makes network and mount namespaces, which stand for other machines."""
    made: list[Place] = []

    def make() -> Place:
        made.append(Place())
        return made[-1]

    yield make
    for place in made:
        place.tidy()
        assert not place.close()


@pytest.fixture
def elsewhere(places: Callable[[], Place]) -> Place:
    """A network and a mount namespace that stand for another machine."""
    return places()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the server was doing when a test failed."""
    report = yield
    if report.failed and call.when != "setup":
        fixtures = getattr(item, "funcargs", {})
        mounts = [fixtures["mount"]] if "mount" in fixtures else []
        mounts += fixtures["alone"].made if "alone" in fixtures else []
        for mount in mounts:
            if call.excinfo is not None and call.excinfo.errisinstance((Stuck, pytest.fail.Exception)):
                mount.broken = True
            mount.stacks()
            report.sections.append(("the server's log and stacks", "".join(mount.log)))
    return report
