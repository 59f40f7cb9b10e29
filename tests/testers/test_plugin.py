"""The pytest plugin, in runs of pytest in a namespace of their own (doc/testing.md)."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import compiled
from harness.places import Place
from harness.waiting import until

from virtfs.client import temporary
from virtfs.testing import captures, plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
_QUIET = ["-q", "-p", "no:cacheprovider"]
_VIRTFS = [sys.executable, "-m", "virtfs"]
# A user who is not root, but who can read the files of root, such as this checkout.
_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]

_FIXTURES = """
    import doctest, inspect, os, socket, sys
    from pathlib import Path
    import pytest
    from virtfs import scapy
    from virtfs.testing import lab as labs, netns as namespaces

    def documented(*classes):
        for of in classes:
            for name, thing in [("", of), *vars(of).items()]:
                text = inspect.getdoc(thing)
                if not name.startswith("__") or name == "__getitem__" or name == "__iter__":
                    if text and ">>>" in text:
                        yield f"{of.__name__}.{name}", text

    def passes(name, text, names):
        test = doctest.DocTestParser().get_doctest(text, dict(names), name, None, 0)
        return not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed

    def test_the_examples_of_docstrings(lab, netns):
        (first, text), *rest = documented(labs.Lab)
        assert passes(first, text, {"lab": lab})
        names = {"lab": lab, "netns": netns, "a": lab["a"], "b": lab["b"], "socket": socket}
        for name, text in [*documented(labs.Host), *rest]:
            for cable in lab.net.cables:
                cable.destroy()
            if name.startswith("Host"):
                lab.cable("a", "b")
            assert passes(name, text, names), name
        text = dict(documented(namespaces.Netns))
        assert all(passes(name, text[name].replace("4711", str(netns.pid)), names) for name in text)

    @pytest.mark.parametrize("detection", ["0", "1"])
    def test_an_address_can_be_used_at_once(virtfs_mount, _virtfs_netns, detection):
        def make():
            netns = _virtfs_netns()
            netns.run("sh", "-c", f"echo {detection} >/proc/sys/net/ipv6/conf/default/accept_dad")
            return netns
        lab = labs.Lab(virtfs_mount, _virtfs_netns if detection == "0" else make)
        lab.cable(lab.host("a", "fd00::1/64"), lab.host("b", "fd00::2/64"))
        assert lab["a"].run("cat", "/proc/sys/net/ipv6/conf/default/accept_dad").stdout == f"{detection}\\n"
        lab["a"].run("ping", "-c1", "-w30", lab["b"].address)
        for host in lab:
            assert not host.netns.tentative()
            host.virt.destroy()

    def test_wrong_uses_are_explained(lab):
        host = lab.host("a")
        with pytest.raises(ValueError, match="the host 'a' has no address"):
            host.address
        with pytest.raises(TypeError, match="give its attribute virt"):
            scapy.VirtSocket(host)

    def test_own_namespaces(netns, _virtfs_netns, virt):
        assert virt.up
        virt.set(netns=netns)
        assert os.stat(netns.path) != os.stat(_virtfs_netns().path) != os.stat("/proc/self/ns/net")
        assert virt.host.name in netns.run("ip", "-brief", "link").stdout
        with pytest.raises(Exception, match="exit status 3") as failure:
            netns.run("sh", "-c", "echo the reason >&2; exit 3")
        assert failure.value.__notes__ == ["the reason\\n"]
        with pytest.raises(Exception, match="timed out") as failure:
            netns.run("sleep", "600", timeout=0.01)
        assert failure.value.cmd == ["sleep", "600"]
        for seconds in (0.1, 0.5, 5, 30):  # until the machine is fast enough
            with pytest.raises(Exception, match="timed out") as failure:
                netns.run("sh", "-c", "echo so far; echo a complaint >&2; sleep 600", timeout=seconds)
            if "complaint" in failure.value.__notes__[0]:
                break
        assert failure.value.__notes__ == ["so far\\na complaint\\n"]
        assert [entry.path.name for entry in failure.traceback][1:] == ["netns.py"]
        netns.run("sh", "-c", "sleep 600 &", capture_output=False)  # ends with the test

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_a_server_that_listens(netns, address):
        serve = "import socket, sys; socket.create_server((sys.argv[1], 5201), family=int(sys.argv[2])).accept()"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = netns.start(sys.executable, "-c", serve, address, str(int(family)), listening=5201)
        tables = [Path(f"/proc/{netns.pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
        assert sum(table.count(":1451 ") for table in tables) == 1
        assert server.poll() is None
        with pytest.raises(ChildProcessError, match="exit status 1 before it listened on TCP port 5202: 'false'"):
            netns.start("false", listening=5202)
"""
_FAILING = """
    import pytest

    @pytest.mark.parametrize("way", ["there and back"])
    def test_wrong(virt, virtfs_mount, way):
        virtfs_mount.create(description="unused").mark("no frame")
        virtfs_mount.create(history=0)
        with virt.open() as port:
            port.send(bytes(12) + bytes.fromhex("88b5") + b"the last frame")
        virt.mark("no frame either")
        virt.description = "the host: a"
        with virtfs_mount.clone() as unused:
            assert unused.history_size == virt.history_size
            assert virt.stats["tx_frames"] == 2, str(virtfs_mount.path)
"""


def command(pytester: pytest.Pytester, *words: str) -> list[str]:
    """Return the command line of pytest. nsenter(1) has changed the working directory."""
    return ["env", "-C", str(pytester.path), sys.executable, "-m", "pytest", *_QUIET, *words]


def python_blocks(document: str) -> list[str]:
    """Return the blocks of Python in a document."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def nothing_is_left(place: Place) -> bool:
    """Return whether no mount, interface or process is left."""
    return (place.mounts(), place.links(), place.processes()) == ([], ["lo"], {})


def test_pytest_finds_the_plugin() -> None:
    assert {found.value for found in entry_points(group="pytest11", name="virtfs")} == {"virtfs.testing.plugin"}


@pytest.mark.timeout(180)
def test_two_workers_without_root(pytester: pytest.Pytester) -> None:
    """The examples and the suite of doc/testing.md pass. A failing test leaves captures, and nothing else is left."""
    pages = {f"test_page_{number}": block for number, block in enumerate(python_blocks("doc/testing.md"))}
    (pages["test_readme"],) = (block for block in python_blocks("README.md") if "lab" in block)
    pytester.makepyfile(test_fixtures=_FIXTURES, test_failing=_FAILING, **pages)
    tests = pytester.mkdir("tests")
    for page in pages:
        (pytester.path / f"{page}.py").rename(tests / f"{page}.py")
    compiled.example("responder", tests)  # the page has its test
    run = "python -m pytest -q -n2 --dist=loadfile --virtfs-captures=kept --junit-xml=report.xml -p no:cacheprovider"
    left = "grep -c fuse.virtfs /proc/self/mountinfo; ip -brief link | wc -l; pgrep -fc '[v]irtfs mount'"
    script = f"{run} --rootdir=. . {ROOT}/examples/pytest; {left}; cd $VIRTFS; umount -l .; {left}"
    result = pytester.run(
        *_USER, *_VIRTFS, "shell", "--", "sh", "-c", script.replace("python", sys.executable, 1), timeout=170
    )
    result.assert_outcomes(passed=27, failed=1)
    before, *links_and_servers = result.outlines[-6:-3]
    assert int(before) == int(result.outlines[-3]) + 1, "only the mount of virtfs shell is left"
    assert links_and_servers == ["1", "0"]
    (path,) = (pytester.path / "kept").glob("[!.]*")
    name = r"test_failing\.py-test_wrong-there-and-back\.\w{8}-virt\d\.the_host_a\.pcapng"
    assert re.fullmatch(name, path.name)
    assert b"the last frame" in path.read_bytes()
    result.stdout.fnmatch_lines(
        [
            "*- virtfs: last frames -*",
            f"virt? (the host: a): {path}: 1 frame",
            "virt? (unused): no frames",
            "*= virtfs: last frames of failed tests =*",
            str(path),
        ]
    )
    property = ElementTree.parse("report.xml").find(".//property[@name='virtfs_capture']")
    assert property is not None
    assert property.get("value") == str(path)


_TEARDOWN = """
    import pytest

    @pytest.fixture
    def checked(virt):
        yield
        with virt.open() as port:
            port.send(bytes(12) + bytes.fromhex("88b5") + b"the last frame")
        pytest.fail("at the end")

    def test_right(checked):
        pass
"""


def test_a_failing_teardown_leaves_captures(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """The interface and, after the last test, the mount have ended when pytest reports it."""
    pytester.makepyfile(_TEARDOWN)
    result = pytester.run(*elsewhere.command(*command(pytester, "--virtfs-captures=kept")), timeout=50)
    result.assert_outcomes(passed=1, errors=1)
    (path,) = (pytester.path / "kept").glob("[!.]*")
    assert b"the last frame" in path.read_bytes()
    result.stdout.fnmatch_lines(["*= virtfs: last frames of failed tests =*", str(path)])
    (path.parent / "other-virt0.pcapng").touch()
    (path.parent / f"{path.name.removesuffix('.pcapng')}.the_host_a.pcapng").touch()
    pytester.makepyfile(_TEARDOWN.replace('pytest.fail("at the end")', "pass"))
    pytester.run(*elsewhere.command(*command(pytester, "--virtfs-captures=kept")), timeout=50).assert_outcomes(passed=1)
    assert [left.name for left in path.parent.glob("[!.]*")] == ["other-virt0.pcapng"]


def test_captures_are_below_the_root_directory(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """The option is often in the configuration, and a run may begin in any directory."""
    pytester.makeini("[pytest]\naddopts = --virtfs-captures=kept\n")
    (pytester.mkdir("deep") / "test_failing.py").write_text(textwrap.dedent(_FAILING))
    _env, _directory, folder, *words = command(pytester)
    result = pytester.run(*elsewhere.command("env", "-C", f"{folder}/deep", *words), timeout=50)
    result.assert_outcomes(failed=1)
    assert len([*(pytester.path / "kept").glob("*.pcapng")]) == 1


def test_captures_that_cannot_be_removed_or_written(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """The tests run even if the captures are on a read-only mount and warnings are errors. One warning says why."""
    pytester.makepyfile(test_failing=_FAILING, test_right="def test_right(virt):\n    pass\n")
    words = command(pytester, "-Werror", "--tb=line", "--virtfs-captures=kept")
    (pytester.path / "kept").mkdir()
    for test in ("test_failing.py::test_wrong[there and back]", "test_right.py::test_right"):
        (pytester.path / "kept" / f"{captures.file_name(test)}-virt0.pcapng").touch()
    read_only = "mount --bind $1/kept $1/kept; mount -o remount,ro,bind $1/kept; shift; exec $@"
    result = pytester.run(*elsewhere.command("sh", "-ec", read_only, "sh", str(pytester.path), *words), timeout=50)
    result.assert_outcomes(passed=1, failed=1, warnings=1)
    advice = "choose another directory with --virtfs-captures=DIR"
    result.stdout.fnmatch_lines(["no captures: *Read-only file system*", f"*cannot be removed: *pcapng': {advice}"])


_ENDING = """
    import os
    import signal
    from virtfs.testing.plugin import _SERVER

    def end(config):
        os.kill(config.stash[_SERVER]._process.pid, signal.SIGKILL)

    def test_a_server_that_ends(lab, pytestconfig):
        lab.switch(lab.host("a"), lab.host("b"))
        end(pytestconfig)
        lab.host("c")

    def test_another(virtfs_mount, lab):
        assert lab.switch(lab.host("a")).members == [virtfs_mount[1].host.name]

    def test_the_last(virt, pytestconfig):
        end(pytestconfig)
"""


def test_a_server_that_ends_is_named_and_replaced(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_ENDING)
    result = pytester.run(*elsewhere.command(*command(pytester, "--tb=short")), timeout=50)
    result.assert_outcomes(passed=2, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*_ ERROR at teardown of test_a_server_that_ends _*",
            "the server has ended (SIGKILL)",
            "*_ ERROR at teardown of test_the_last _*",
            "the server has ended (SIGKILL)",
            "*_ test_a_server_that_ends _*",
            "no captures: the server has ended (SIGKILL)",
        ]
    )
    assert (elsewhere.mounts(), elsewhere.processes()) == ([], {})


_NEIGHBOURS = """
    TIMES = ("base_reachable_time_ms", "delay_first_probe_time")

    def test_times(lab):
        lab.cable(lab.host("a", "10.0.0.1/24"), lab.host("b", "fd00::2/64"))
        lab.host("c", "10.0.0.3/24", mtu=600)  # too little for IPv6
        for host in lab:
            for family in ("4", "6") if host.virt.mtu > 1280 else ("4",):
                files = [f"/proc/sys/net/ipv{family}/neigh/{host.interface}/{name}" for name in TIMES]
                milliseconds, seconds = map(int, host.run("cat", *files).stdout.split())
                assert milliseconds >= 2 * 3600_000, host  # the kernel takes half of it, or more
                assert seconds >= 3600, host
"""
_CONTAINER = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"


@pytest.mark.parametrize("system", ["true", _CONTAINER], ids=["writable", "read-only"])
def test_hosts_do_not_check_their_neighbours(pytester: pytest.Pytester, elsewhere: Place, system: str) -> None:
    """Nothing sends a frame behind a test's back, also in a container whose /proc/sys cannot be written."""
    pytester.makepyfile(_NEIGHBOURS)
    words = ["sh", "-ec", f'{system}; exec "$@"', "sh", *command(pytester)]
    pytester.run(*elsewhere.command(*words), timeout=50).assert_outcomes(passed=1)


_WAITING = """
    import time

    def test_forever(lab):
        lab.host("a", "10.0.0.1/24").start("sleep", "600")
        print("ready", flush=True)
        time.sleep(600)
"""


def test_nothing_is_left_of_a_run_that_was_killed(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """After Ctrl-C, pytest ends the fixtures, as after any test."""
    pytester.makepyfile(_WAITING)
    running = elsewhere.start(*command(pytester, "-s"), stdout=subprocess.PIPE)
    assert running.stdout is not None
    until(lambda: "ready" in str(running.stdout and running.stdout.readline()), "the test waits", 30)
    assert len(elsewhere.mounts()) == 1
    running.kill()
    running.communicate(timeout=30)
    until(lambda: nothing_is_left(elsewhere), "everything has ended", 30)


_STARTING = """
import os, subprocess, sys
from virtfs.testing.server import dying_with_us
program = subprocess.Popen(dying_with_us("KILL", "touch", sys.argv[1]), stdin=subprocess.PIPE)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
program.communicate()
"""


@pytest.mark.parametrize("fate", ["killed", "ends"])
def test_a_program_does_not_begin_after_its_parent_was_killed(tmp_path: Path, fate: str) -> None:
    """The kill may come before the program has asked for a signal at its parent's end. Here it always does."""
    slow, file = tmp_path / "setpriv", tmp_path / "file"
    # cat ends when the parent has closed its end of the pipe, which a killed one does before it gives up its children.
    # $6 is the parent's process ID.
    orphaned = 'while [ "$(cut -d" " -f4 /proc/$$/stat)" = "$6" ]; do sleep 0.01; done' if fate == "killed" else ""
    slow.write_text(f'#!/bin/sh\ncat\n{orphaned}\nexec {shutil.which("setpriv")} "$@"\n')
    slow.chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(
        [sys.executable, "-c", _STARTING, file, fate], env=path, check=fate == "ends", capture_output=True, timeout=30
    )  # returns when the program has closed the pipes
    assert file.exists() == (fate == "ends")


def test_the_folders_of_killed_runs_are_removed(tmp_path: Path) -> None:
    for name in ("dead", "living", "of_another_program"):
        (tmp_path / f"virtfs-{name}" / "virt").mkdir(parents=True)
    os.close(temporary.locked(tmp_path / "virtfs-dead"))
    living = temporary.locked(tmp_path / "virtfs-living")
    temporary.remove_abandoned(tmp_path)
    assert sorted(left.name for left in tmp_path.iterdir()) == ["virtfs-living", "virtfs-of_another_program"]
    os.close(living)


_LIGHT = """
    import sys

    def test_nothing_more_is_imported():
        ours = {name for name in sys.modules if name.partition(".")[0] == "virtfs"}
        assert ours == {"virtfs", "virtfs.testing", "virtfs.testing.plugin"}

    def test_refused(virt):
        pass

    def test_refused_too(netns):
        pass
"""


def test_without_root_it_says_what_to_do(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_LIGHT)
    result = pytester.run(*elsewhere.command(*_USER, *command(pytester)), timeout=50)
    result.assert_outcomes(passed=1, errors=2)
    advice = "need root: run the tests with `virtfs shell -- pytest`"
    result.stdout.fnmatch_lines([f"interfaces {advice}", f"network namespaces {advice}"])


def test_root_without_capabilities_is_told_which(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_LIGHT)
    names = ["NET_BROADCAST", "NET_ADMIN", "NET_RAW", "SYS_PTRACE", "SYS_ADMIN"]
    bounded = ["setpriv", f"--bounding-set=-{',-'.join(names).lower()}", "--inh-caps=-all", "--"]
    result = pytester.run(*elsewhere.command(*bounded, *command(pytester)), timeout=50)
    result.assert_outcomes(passed=1, errors=2)
    for needed in (names, ["NET_ADMIN", "SYS_ADMIN"]):
        lacking = " and ".join(f"CAP_{name}" for name in needed)
        options = " ".join(f"--cap-add {name}" for name in needed)
        result.stdout.fnmatch_lines([f"root lacks {lacking} here, *: start the container with {options}"])


# Hides the devices of the kernel except those that $1 lists, and runs a command.
_DEVICES = """
mkdir /mnt/dev
mount --bind /dev /mnt/dev
mount -t tmpfs tmpfs /dev
mkdir /dev/net
for name in null zero urandom $1; do ln -s /mnt/dev/$name /dev/$name; done
shift
exec "$@"
"""


def with_devices(place: Place, devices: str, *words: str) -> list[str]:
    """Return a command line that runs a command in a place with these devices: of "fuse net/tun"."""
    return place.command("unshare", "--mount", "sh", "-ec", _DEVICES, "sh", devices, *words)


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ("", "there is no /dev/fuse and no /dev/net/tun: as root, run `modprobe -a fuse tun`"),
        ("fuse", "there is no /dev/net/tun: as root, run `modprobe -a tun`"),
        ("net/tun", "there is no /dev/fuse: as root, run `modprobe -a fuse`"),
    ],
)
def test_a_missing_device_is_one_line(pytester: pytest.Pytester, elsewhere: Place, devices: str, sentence: str) -> None:
    pytester.makepyfile("def test_refused(lab): pass")
    result = pytester.run(*with_devices(elsewhere, devices, *command(pytester)), timeout=50)
    result.assert_outcomes(errors=1)
    at = next(number for number, line in enumerate(result.outlines) if "ERROR at setup of test_refused" in line)
    assert result.outlines[at + 1].startswith(sentence)


_SKIPPED = """
    def test_with_interfaces(lab):
        pass

    def test_with_a_namespace(netns):
        pass

    def test_of_another_kind():
        pass
"""


def test_what_is_missing_can_skip_tests(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """The conftest.py of doc/testing.md. A namespace needs no device."""
    (skips,) = (block for block in python_blocks("doc/testing.md") if "pytest.skip" in block)
    pytester.makeconftest(skips)
    pytester.makepyfile(_SKIPPED)
    run = command(pytester, "-rs")
    for words, skipped, reason in (
        (elsewhere.command(*run), 0, ""),
        (with_devices(elsewhere, "fuse", *run), 1, "there is no /dev/net/tun"),
        (elsewhere.command(*_USER, *run), 2, "network namespaces need root"),
        (elsewhere.command(run[0], *run[1:3], "PATH=/nowhere", *run[3:]), 2, "the fixtures of virtfs need ip and "),
    ):
        result = pytester.run(*words, timeout=50)
        result.assert_outcomes(skipped=skipped, passed=3 - skipped)
        result.stdout.fnmatch_lines([f"SKIPPED *: {reason}*"] if skipped else [])


def test_an_error_of_the_system_names_its_file() -> None:
    def make() -> None:
        Path("/nowhere").stat()

    with pytest.raises(pytest.fail.Exception, match=r"^/nowhere: No such file or directory$"):
        plugin._made(make)


def test_a_directory_for_temporary_files_with_a_long_name(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """The path of a Unix socket has at most 107 bytes."""
    pytester.makepyfile("def test_made(lab): lab.cable(lab.host('a'), lab.host('b'))")
    long = pytester.mkdir("x" * 100)
    result = pytester.run(*elsewhere.command("env", f"TMPDIR={long}", *command(pytester)), timeout=50)
    result.assert_outcomes(passed=1)
    assert [*long.iterdir()] == []


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("a/test_b.py::Test::test_c", r"a-test_b\.py-Test-test_c"),
        ("a-test_b.py::Test::test_c", r"a-test_b\.py-Test-test_c\.\w{8}"),
        ("a/test_b.py::Test::test_c[1, ../x]", r"a-test_b\.py-Test-test_c-1-\.\.-x\.\w{8}"),
        (f"test_b.py::test_c[{'x' * 300}]", r"x+\.\w{8}"),
        (f"test_b.py::test_{'ä' * 100}", r"ä+\.\w{8}"),
    ],
)
def test_the_name_of_a_capture(test: str, name: str) -> None:
    assert re.fullmatch(name, captures.file_name(test))
    assert len(captures.file_name(test).encode()) < 200


def test_the_captures_of_no_two_tests_have_the_same_name() -> None:
    names = ["-1", "1", "a/b", "a:b", "a b", "a-b", "a.b", "é", "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}"]
    tests = [f"test_a.py::test_q[{name}]" for name in names] + [
        "test_a.py::test_q::a::b",
        "test_a.py-test_q.py::a::b",
        "f/sub/test_x.py::test_a",
        "f/sub-test_x.py::test_a",
        ".f/sub/test_x.py::test_a",
        *(f"{first}{'x' * 300}.py::test_a" for first in "xy"),
    ]
    assert len({captures.file_name(test) for test in tests}) == len(tests)
