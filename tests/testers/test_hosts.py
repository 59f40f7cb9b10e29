"""Programs in namespaces, hosts and cables of the pytest plugin: what goes wrong is said at once."""

import pytest
from harness.places import Place

from .test_plugin import command

pytest_plugins = ["pytester"]

_PROGRAMS = """
    import subprocess, sys
    import pytest

    SERVE = (
        "import socket, sys, time;"
        "listener = socket.create_server(('', 5201), reuse_port='share' in sys.argv);"
        "print('listens', flush=True);"
        "time.sleep(600)"
    )

    def test_streams_can_be_chosen(netns, tmp_path):
        script = ("sh", "-c", "echo out; echo complaint >&2")
        assert netns.run(*script).stderr == "complaint\\n"
        both = netns.run(*script, stderr=subprocess.STDOUT)
        assert (both.stdout, both.stderr) == ("out\\ncomplaint\\n", None)
        with (tmp_path / "kept").open("w") as file:
            done = netns.run(*script, stdout=file)
        assert ((tmp_path / "kept").read_text(), done.stdout, done.stderr) == ("out\\n", None, "complaint\\n")
        assert netns.run(*script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).stderr is None

    @pytest.mark.parametrize(("option", "advice"), [
        ({"shell": True}, '"sh", "-c"'), ({"executable": "/bin/sh"}, "first word"), ({"user": "nobody"}, '"runuser"'),
    ])
    def test_options_that_cannot_work(lab, option, advice):
        for call in (lab.host("a").run, lab["a"].start):
            with pytest.raises(TypeError, match=f"^{[*option][0]}=.* does not work in a namespace: give .*{advice}"):
                call("true", **option)
        assert lab["a"].run("true", shell=False, executable=None).returncode == 0

    @pytest.mark.parametrize("way", ["run", "start"])
    def test_a_program_that_is_not_there(netns, way, tmp_path):
        call = getattr(netns, way)
        (tmp_path / "text").touch()
        for name in ("ipref3", "./ipref3", "ip link"):
            with pytest.raises(FileNotFoundError, match=name) as failure:
                call(name, "-s", check=False) if way == "run" else call(name, "-s")
            with pytest.raises(FileNotFoundError) as usual:
                subprocess.run([name, "-s"])
            assert str(failure.value) == str(usual.value)
        with pytest.raises(PermissionError):
            call(tmp_path / "text")
        with pytest.raises(TypeError, match="no command is given"):
            call()
        (tmp_path / "mine").symlink_to("/bin/true")
        for name, options in {"./mine": {"cwd": tmp_path}, "mine": {"env": {"PATH": str(tmp_path)}}}.items():
            started = call(name, **options)
            assert (started.returncode if way == "run" else started.wait()) == 0

    @pytest.mark.parametrize(("port", "error", "reason"), [
        ("80", TypeError, "listening is the number of a TCP port, such as 5201, not '80'"),
        (0, ValueError, "listening=0 is not a TCP port: ports are 1 to 65535"),
    ])
    def test_no_port(netns, port, error, reason, tmp_path):
        with pytest.raises(error, match=reason):
            netns.start("touch", tmp_path / "started", listening=port)

    def test_a_port_that_is_taken(netns):
        first = netns.start(sys.executable, "-c", SERVE, "share", listening=5201)
        with pytest.raises(ChildProcessError, match="1 before .* port 5201, on which another program listens"):
            netns.start(sys.executable, "-c", SERVE, listening=5201, stderr=subprocess.DEVNULL)
        second = netns.start(sys.executable, "-c", SERVE, "share", listening=5201, stdout=subprocess.PIPE)
        assert second.stdout.readline() == "listens\\n"
        assert first.poll() is second.poll() is None
"""


def test_programs_in_a_namespace(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_PROGRAMS)
    pytester.run(*elsewhere.command(*command(pytester)), timeout=50).assert_outcomes(passed=9)


_LABS = """
    import pytest

    def test_addresses_by_verbs(lab):
        a = lab.host("a", "10.0.0.1/24", inet=["10.0.1.1/24"], inet6="fd00::1/64")
        assert (a.addresses, a.address) == (("10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"), "10.0.0.1")
        assert a.virt.host.addresses == [*a.addresses]
        assert lab.host("b", inet="10.0.0.2/24").address == "10.0.0.2"

    def test_wrong_arguments(lab, virt):
        a, b, c = (lab.host(name) for name in "abc")
        for call, reason in [
            (lambda: lab.cable(a, b, c), "a cable connects two hosts: for <Host c .* use lab.switch"),
            (lambda: lab.switch([a, b]), r"give several one by one, as in switch\\(\\*hosts\\)"),
            (lambda: lab.host("d", ["10.0.0.1/24"]), "an address of a host is a text such as '10.0.0.1/24', not"),
            (lambda: lab.host("d", netns=a.netns), r"use virt.set\\(netns=host.netns\\)"),
            (lambda: lab.cable(a, b, delay=20), 'delay=20 has no unit: give a text, such as delay="20ms"'),
            (lambda: lab.cable(a, b, delay="20ms", jitter="5ms"), 'as in delay="20ms 5ms"'),
        ]:
            with pytest.raises(TypeError, match=reason):
                call()
        assert [host.name for host in lab] == ["a", "b", "c"]
        assert lab.net.cables == []

    def test_a_switch_with_an_interface(lab, virt):
        assert len(lab.switch(lab.host("a"), virt).members) == 2

    def test_the_namespace_as_a_file(lab, netns, virt):
        virt.set(netns=netns.path)
        assert virt.host.netns == str(netns.pid)
        virt.host.netns = ""
        virt.host.netns = netns
        assert virt.host.netns == str(netns.pid)

    def test_counters_are_shown(virt):
        assert "'tx_frames': 0" in repr(virt.stats)
        virt.destroy()
        assert repr(virt.stats).startswith("Stats('")
"""


def test_hosts_and_cables(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_LABS)
    pytester.run(*elsewhere.command(*command(pytester)), timeout=50).assert_outcomes(passed=5)


_NOTHING = """
    def test_with_netns(netns):
        pass

    def test_with_a_mount(virtfs_mount):
        pass

    def test_without():
        pass
"""


def test_missing_programs_are_named(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile(_NOTHING)
    (pytester.path / "bin").mkdir()
    (pytester.path / "bin/ip").symlink_to("/bin/true")
    env, *words = command(pytester)
    path = f"PATH={pytester.path}/bin"
    result = pytester.run(*elsewhere.command(env, *words[:2], path, *words[2:]), timeout=50)
    result.assert_outcomes(passed=1, errors=2)
    needs = "the fixtures of virtfs need nsenter and setpriv and unshare, not found in PATH: install util-linux"
    assert result.outlines.count(needs) == 2
