"""Programs in namespaces, hosts and cables of the pytest plugin: what goes wrong is said at once."""

import re

import pytest
from harness.places import Place

from .test_plugin import command

pytest_plugins = ["pytester"]

_PROGRAMS = """
    import socket, subprocess, sys
    import pytest
    from virtfs.testing.netns import Netns

    SEND = "import socket; socket.socket(type=2).sendto(b'from the namespace', ('127.0.0.1', 7))"
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

    @pytest.mark.parametrize("way", ["run", "start"])
    def test_words_that_are_not_given_one_by_one(netns, way):
        call = getattr(netns, way)
        with pytest.raises(FileNotFoundError) as failure:
            call("ping -c1 10.0.0.2")
        assert failure.value.__notes__ == ['give the words one by one: "ping", "-c1", "10.0.0.2"']
        with pytest.raises(TypeError, match='^the word 1 is not a text: write "1"$'):
            call("ping", "-c", 1)
        for words in (["ip", "link"], ("ip", "link")):
            with pytest.raises(TypeError, match='is not a word: .* one by one: "ip", "link"; or \\\\*words'):
                call(words)

    @pytest.mark.parametrize("call", [
        lambda netns: netns.run("true"), lambda netns: netns.start("true"), lambda netns: netns.socket(),
        lambda netns: netns.command("true"),
    ])
    def test_a_closed_namespace(call):
        with Netns() as netns:
            call(netns)
        with pytest.raises(ValueError, match="^this namespace is closed: its test"):
            call(netns)

    def test_a_namespace_that_cannot_be_made_ends_no_other_program(tmp_path, monkeypatch):
        # When the error is known, the holder may still run, in the namespace of its parent.
        (tmp_path / "unshare").write_text("#!/bin/sh\\necho unshare: the reason >&2; exec sleep 600 >&- 2>&-")
        (tmp_path / "unshare").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            with pytest.raises(OSError, match="cannot make a network namespace: unshare: the reason$"):
                Netns()
            assert other.communicate("still here", timeout=30) == ("still here", None)

    def test_arguments_that_are_not_numbers(netns):
        with pytest.raises(TypeError, match="^timeout='5' is not a number of seconds, such as 5$"):
            netns.run("true", timeout="5")
        with pytest.raises(TypeError, match="^kind='dgram' is not a number: give a constant, .*socket.SOCK_DGRAM$"):
            netns.socket(kind="dgram")

    def test_a_socket_of_the_test(netns):
        with netns.socket(kind=socket.SOCK_DGRAM) as ours:
            ours.bind(("127.0.0.1", 7))
            netns.run(sys.executable, "-c", SEND)
            assert ours.recv(100) == b"from the namespace"
        with pytest.raises(OSError, match="Protocol not supported"):
            netns.socket(proto=200)
        other = netns.socket(socket.AF_INET6)
        netns.close()
        assert other.fileno() == -1, "closed with the namespace"
        with socket.socket() as outside, pytest.raises(OSError):
            outside.connect(("127.0.0.1", 7))

    @pytest.mark.parametrize(("port", "error", "reason"), [
        ("80", TypeError, "listening is the number of a TCP port, such as 5201, not '80'"),
        (0, ValueError, "listening=0 is not a TCP port: ports are 1 to 65535"),
    ])
    def test_no_port(netns, port, error, reason, tmp_path):
        with pytest.raises(error, match=reason):
            netns.start("touch", tmp_path / "started", listening=port)

    def test_a_program_that_ends_without_an_error_does_not_listen(netns, monkeypatch):
        with pytest.raises(ChildProcessError, match="exit status 0 before it listened on TCP port 5201: 'true'"):
            netns.start("true", listening=5201)
        netns.start("sleep", "60")  # another program is not the daemon
        with pytest.raises(ChildProcessError, match="exit status 0"):
            netns.start("true", listening=5201)

    def test_a_daemon_may_listen_later(netns, monkeypatch, tmp_path):
        (tmp_path / "serve").write_text(SERVE)
        daemon = 'sleep 0.2; exec "$0" "$1"'
        netns.start("sh", "-c", f"({daemon}) >/dev/null 2>&1 &", sys.executable, tmp_path / "serve", listening=5201)
        monkeypatch.setattr("virtfs.testing.netns._PATIENCE", 0.1)
        with pytest.raises(TimeoutError, match="after 0 s; it has ended with status 0, perhaps to continue"):
            netns.start("sh", "-c", "sleep 60 &", listening=5202)

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
    pytester.run(*elsewhere.command(*command(pytester)), timeout=50).assert_outcomes(passed=20)


_LABS = """
    import pytest

    def test_addresses_by_verbs(lab):
        a = lab.host("a", "10.0.0.1/24", inet=["10.0.1.1/24"], inet6="fd00::1/64")
        assert (a.addresses, a.address) == (("10.0.0.1/24", "10.0.1.1/24", "fd00::1/64"), "10.0.0.1")
        assert a.virt.host.addresses == [*a.addresses]
        assert lab.host("b", inet="10.0.0.2/24").address == "10.0.0.2"

    def test_a_host_with_a_filter(lab):
        a = lab.host("a", "10.0.0.1/24", filter="udp")
        assert (a.virt.filter, a.virt.description) == ("udp", "a")
        assert lab.host("b", filter="udp", description="another").virt.description == "another"

    def test_wrong_arguments(lab, virt):
        a, b, c = (lab.host(name) for name in "abc")
        for call, reason in [
            (lambda: lab.cable(a, b, c), "a cable connects two hosts: for <Host c .* use lab.switch"),
            (lambda: lab.switch([a, b]), r"give several one by one, as in switch\\(\\*hosts\\)"),
            (lambda: lab.host("d", ["10.0.0.1/24"]), "an address of a host is a text such as '10.0.0.1/24', not"),
            (lambda: lab.host("d", netns=a.netns), r"use virt.set\\(netns=host.netns\\)"),
            (lambda: lab.cable(a, b, delay=20), 'delay=20 has no unit: give a text, such as delay="20ms"'),
            (lambda: lab.cable(a, b, delay="20ms", jitter="5ms"), 'as in delay="20ms 5ms"'),
            (lambda: lab.cable(a, b, delay=("10ms", "5ms")), "delay=.* is not a text: give one, such as delay="),
            (lambda: a.run("ping", "-c", 1), 'the word 1 is not a text: write "1"'),
        ]:
            with pytest.raises(TypeError, match=reason):
                call()
        assert [host.name for host in lab] == ["a", "b", "c"]
        assert lab.net.cables == []
        with pytest.raises(KeyError, match='for an impairment, write impair="delay 5ms"'):
            lab.switch(a, b, "delay 5ms")

    @pytest.mark.parametrize(("name", "where"), [("impair", "virt"), ("mtu", "virt"), ("index", "virt.host")])
    def test_attributes_of_the_interface(lab, name, where):
        a = lab.host("a")
        with pytest.raises(AttributeError, match=f"^a host has no {name}: write host.{where}.{name}$"):
            getattr(a, name)
        with pytest.raises(AttributeError, match=f"^a host has no {name}: write host.{where}.{name}$"):
            setattr(a, name, "loss 5%")
        assert (a.virt.impair, hasattr(a, name), hasattr(a, "wobble")) == ("", False, False)
        for own in ("name", "address", "wobble"):
            with pytest.raises(AttributeError, match=f"^{own} of a host cannot be set$"):
                setattr(a, own, "b")

    def test_a_host_that_does_not_exist(lab):
        for call in (lambda: lab["a"], lambda: lab.cable("a", "b")):
            with pytest.raises(KeyError, match="there is no host 'a': no host has been made yet"):
                call()
        with pytest.raises(TypeError, match="^the name of a host is a text such as 'a', not 5$"):
            lab.host(5)
        lab.host("a")
        for wrong in ("zz", 5):
            with pytest.raises(KeyError, match=f"there is no host {wrong!r}: the hosts are a"):
                lab[wrong]

    def test_counters_of_a_cable(lab):
        stats = lab.cable(lab.host("a"), lab.host("b")).stats
        for name, hint in {"lost": ''': stats["out"]['lost']''', "wobble": ""}.items():
            with pytest.raises(KeyError) as failure:
                stats[name]
            assert failure.value.strerror == f'''stats has "out" and "in", not {name!r}{hint}'''

    def test_a_switch_with_an_interface(lab, virt):
        assert len(lab.switch(lab.host("a"), virt).members) == 2

    def test_nothing_is_left_of_a_switch_that_is_refused(lab, virtfs_mount):
        a, b, c = (lab.host(name) for name in "abc")
        lab.cable(b, c)
        before = [*virtfs_mount]
        for refused in ({"dealy": "5ms"}, {}):  # the second one: b has a cable already, and a has got one
            with pytest.raises(OSError, match="delay|cable"):
                lab.switch(a, b, **refused)
            assert [*virtfs_mount] == before
        assert [*virtfs_mount.bridges] == []
        lab.cable(a, lab.host("d"))

    def test_a_switch_for_jumbo_frames(lab):
        a, b = (lab.host(name, f"10.0.0.{number}/24", mtu=9000) for number, name in enumerate("ab", 1))
        lab.switch(a, b)
        a.run("ping", "-c1", "-W20", "-Mdo", "-s8000", b.address)

    def test_a_bridge_in_a_namespace_bypasses_packet_filters(netns):
        show = "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || cat $file; done"
        assert not set(netns.run("sh", "-c", show).stdout) - set("0\\n")

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
    pytester.run(*elsewhere.command(*command(pytester)), timeout=50).assert_outcomes(passed=14)


_LINES = """
    import virtfs

    def helper(lab):
        lab.host("a").run("false")  # in the helper

    def test_a_command(lab):
        helper(lab)  # in the test

    def test_a_refusal(virt):
        virt.mtu = 1  # a refusal

    def test_a_counter(virt):
        virt.stats["wobble"]  # a counter

    def test_a_cable(lab):
        lab.cable(lab.host("a"), "b")  # a cable

    def test_a_new_mount(virtfs_mount, tmp_path):
        virtfs.Mount(tmp_path)  # a mount
"""


@pytest.mark.parametrize("form", ["short", "line", "long"])
def test_reports_end_with_the_line_of_the_test(pytester: pytest.Pytester, elsewhere: Place, form: str) -> None:
    pytester.makepyfile(test_lines=_LINES)
    result = pytester.run(*elsewhere.command(*command(pytester, f"--tb={form}")), timeout=50)
    result.assert_outcomes(failed=5)
    lines = _LINES.splitlines()
    for wanted in ("# in the helper", "# a refusal", "# a counter", "# a cable", "# a mount"):
        number = next(number for number, line in enumerate(lines) if wanted in line)
        result.stdout.fnmatch_lines_random(f"*test_lines.py:{number}: *")
    result.stdout.no_fnmatch_line("*virtfs/testing/*.py:*")
    result.stdout.no_fnmatch_line("*virtfs/client/*.py:*")


_MODULE = """
    from contextlib import ExitStack
    import os, subprocess, sys
    import pytest, virtfs
    from virtfs.testing.lab import Lab
    from virtfs.testing.netns import Netns

    @pytest.fixture(scope="module")
    def pair(virtfs_mount):
        with ExitStack() as stack:
            lab = Lab(virtfs_mount, lambda: stack.enter_context(Netns()))
            lab.cable(lab.host("a", "10.0.0.1/24"), lab.host("b", "10.0.0.2/24"))
            yield lab
            for host in lab:
                host.virt.destroy()

    def test_first(pair):
        pair["a"].run("ping", "-c1", pair["b"].address)

    def test_second(pair, virt):
        with virt.open() as port:
            port.send(bytes(60))
        assert not "the frames of the test before"

    def test_third(pair):
        pair["a"].run("ping", "-c1", pair["b"].address)
        assert not "the frames of this test"

    def test_programs_use_the_mount(virtfs_mount):
        assert virtfs.Mount().path == virtfs_mount.path
        program = "import virtfs; print(virtfs.Mount().path)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == f"{virtfs_mount.path}\\n", done.stderr
"""


def test_frames_of_earlier_tests_are_told_apart(pytester: pytest.Pytester, elsewhere: Place) -> None:
    """In a lab that several tests use, only the frames since the test began belong to it."""
    pytester.makepyfile(test_pair=_MODULE)
    result = pytester.run(*elsewhere.command(*command(pytester, "--tb=line")), timeout=50)
    result.assert_outcomes(passed=2, failed=2)
    assert re.findall(r"virt\d \(a\): .*: (\d+ frames?.*)", result.stdout.str()) == [
        "4 frames, 0 of them since this test began",
        "6 frames, 2 of them since this test began",
    ]
    result.stdout.fnmatch_lines(["virt2: *-virt2.pcapng: 1 frame"])


def test_without_the_fixture_the_error_names_it(pytester: pytest.Pytester, elsewhere: Place) -> None:
    pytester.makepyfile("import virtfs\n\ndef test_nowhere():\n    virtfs.Mount()\n")
    words = command(pytester, "--tb=line")
    result = pytester.run(*elsewhere.command(*words[:3], "-u", "VIRTFS", *words[3:]), timeout=50)
    result.stdout.fnmatch_lines(["*no virtfs is mounted here: in a test, use the fixture virtfs_mount: '/mnt/virt'*"])


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
