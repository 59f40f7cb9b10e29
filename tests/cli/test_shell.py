"""`virtfs shell`, as an ordinary user and as root."""

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from harness import children
from harness.running import ENVIRONMENT, ROOT, USER, VIRTFS, Terminal, run, script, terminal, until
from harness.tools import need_bridge_filter
from harness.users import HIS_VIRTFS, MANY_IDS, ONE_ID, as_user

from virtfs.host.privileges import Capability

SHELL = [*VIRTFS, "shell"]
WHO = pytest.mark.parametrize("who", [USER, []], ids=["user", "root"])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which mount points are created. It is empty if nothing is left behind."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(path))
    return path


@WHO
def test_a_command_has_a_virtfs_to_work_with(temporary: Path, who: list[str]) -> None:
    done = run(
        [
            *(*who, *SHELL, "sh", "-euc"),
            """
            test "$(id -u)" = 0
            test "$PWD" = "$VIRTFS"
            ip link show up dev lo | grep -q LOOPBACK
            echo create 3 up inet 10.0.3.1/24 backlog 1 >ctl
            ping -c1 -W1 10.0.3.2 >ping & dd if=virt3/frame bs=2048 count=1 status=none | xxd -p -l 6
            """.replace(">ping", ">/dev/null"),
        ]
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ffffffffffff\n", "")
    assert not list(temporary.iterdir())
    assert "tap3" not in run(["ip", "link"]).stdout


@WHO
def test_wrong_packets_reach_the_other_port_of_a_bridge(who: list[str]) -> None:
    """With Docker on the host, each new network namespace sends bridged frames through iptables, which drops them."""
    need_bridge_filter()
    done = run(
        [
            *(*who, *SHELL, "sh", "-euc"),
            """
            printf '%s\\n' 'create 3 up' 'create 4 up' 'create bridge0 up add virt3 add virt4' >ctl
            cat last_error
            timeout 10 grep -om1 020000000001 virt4/hex & timeout 10 cat virt4/wait/reader
            echo ffffffffffff 020000000001 0800 45000014 00000000 4001 1234 0a000001 0a000002 >virt3/hex; wait
            """,
        ]
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n1\n020000000001\n", "")


@pytest.mark.parametrize(
    ("given", "names"),
    [({}, "54321 54321"), ({"USER": "alice"}, "alice alice"), ({"USER": "alice", "LOGNAME": "al"}, "alice al")],
)
def test_the_caller_keeps_a_name(given: dict[str, str], names: str) -> None:
    """Programs that would look for the name of uid 0 find the caller, here a user without an entry in /etc/passwd."""
    words = [f"{name}={value}" for name, value in given.items()]
    echo = ["sh", "-c", 'echo "$USER $LOGNAME"']
    somebody = [word.replace("1000", "54321") for word in USER]
    done = run([*somebody, "env", "-u", "USER", "-u", "LOGNAME", *words, *SHELL, *echo])
    assert (done.stdout, done.stderr) == (f"{names}\n", "")


@WHO
def test_man_finds_the_pages_of_a_checkout(who: list[str]) -> None:
    done = run([*who, *SHELL, "man", "-w", "5", "virtfs"], MANPATH="", PATH="/usr/bin:/bin")
    assert (done.stdout, done.stderr) == (f"{ROOT / 'man/virtfs.5'}\n", "")


def test_a_cable_to_a_socket_of_another_user_says_who_may_connect() -> None:
    bind = "import socket; socket.socket(socket.AF_UNIX).bind('/mnt/wire')"
    him = as_user(before=f'python3 -c "{bind}"; chmod 600 /mnt/wire')
    why = "cannot connect to unix:/mnt/wire: Permission denied: its mode is 0600"
    remedy = 'at the other end, "mode 666" lets every user connect, "group NAME" a group'
    connect = "echo create 3 >ctl; echo cable 3 unix:/mnt/wire >ctl"
    denied = "until grep -q denied status.json; do sleep 0.05; done"
    done = run([*him, *HIS_VIRTFS, "shell", "sh", "-c", f"{connect}; {denied}; {' '.join(HIS_VIRTFS)} ls"])
    assert done.stdout.splitlines()[-1] == f"  virt3: {why}: {remedy}", done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["--", "sh", "-c", "exit 3"], 3),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_its_exit_status_is_passed_on(temporary: Path, command: list[str], status: int) -> None:
    done = run([*USER, *SHELL, *command])
    assert done.returncode == status, done.stderr
    assert not list(temporary.iterdir())


@WHO
def test_ctrl_c_while_it_starts_prevents_the_command(tmp_path: Path, who: list[str]) -> None:
    """An ip(8) that waits stands for a slow start. The signal goes to the process group, as from a terminal."""
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    ip = tmp_path / "ip"
    ip.write_text(f"#!/bin/sh\necho >{tmp_path}/begun\nread go <{tmp_path}/go\n")
    ip.chmod(0o755)
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with children.start(
        [*who, *SHELL, "echo", "here"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert (tmp_path / "begun").read_text() == "\n"
        os.killpg(process.pid, signal.SIGINT)
        (tmp_path / "go").write_text("\n")
        assert process.communicate() == ("", "")
    assert process.returncode == 128 + signal.SIGINT


@WHO
def test_the_server_drops_capabilities_and_the_command_does_not(who: list[str]) -> None:
    """The processes are: 1, the server as its first child, and the command."""
    script = "cut -f2 <(grep -h -e CapEff -e NoNewPrivs /proc/1/status /proc/{$(pgrep -P1 | head -1),self}/status)"
    done = run([*who, *SHELL, "bash", "-c", script])
    first, _, server, bound, command, free = done.stdout.split()
    assert (command, free) == (first, "0"), "as process 1"
    assert (int(server, 16), bound) == (int(first, 16) & sum(1 << number for number in Capability), "1")


def process_of(command: str) -> list[int]:
    """Return the ids of the processes that run a command."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            text = (directory / "cmdline").read_bytes()
        except OSError:  # the process has ended meanwhile
            continue
        if text == command.replace(" ", "\0").encode() + b"\0":
            found.append(int(directory.name))
    return found


@WHO
def test_what_the_command_left_running_is_gone(temporary: Path, who: list[str]) -> None:
    left = f"sleep 1{os.getpid()}"
    done = run([*who, *SHELL, "sh", "-c", f"setsid {left} & setsid cat virt3/frame & echo create 3 up >ctl"])
    assert done.returncode == 0
    assert not process_of(left)
    assert not list(temporary.iterdir())


@WHO
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_all_of_it_ends_with_the_shell_command(who: list[str], number: signal.Signals) -> None:
    left = f"sleep 2{os.getpid()}"
    with children.start(
        [*who, *SHELL, "sh", "-c", f"echo here; setsid {left}"], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(number)
        assert process.stdout.read() == ""  # no process has the write end open
    until(lambda: not process_of(left), "the end of what it started")


@WHO
def test_the_next_shell_removes_the_directory_of_a_killed_one(temporary: Path, who: list[str]) -> None:
    """It leaves alone the directory of a shell that runs, and others of that name."""
    other = temporary / "virtfs-other"
    other.mkdir()
    command = [*who, *SHELL, "sh", "-c", "echo $VIRTFS; read line"]
    pipe = subprocess.PIPE
    with (
        children.start(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe) as killed,
        children.start(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe) as running,
    ):
        assert killed.stdout is not None
        assert running.stdout is not None
        dead, living = Path(killed.stdout.readline().strip()), Path(running.stdout.readline().strip())
        killed.kill()
        killed.communicate()
        assert sorted(temporary.iterdir()) == sorted([dead, living, other])
        run([*who, *SHELL, "true"])
        assert sorted(temporary.iterdir()) == sorted([living, other])
        assert running.communicate("\n")[0] == ""
    assert [*temporary.iterdir()] == [other]


INTERACTIVE = ["bash", "--norc", "--noediting"]


def in_the_foreground(terminal: Terminal, command: str) -> bool:
    """Return whether a process of this command sleeps in the terminal's foreground group, proc_pid_stat(5)."""
    for process in process_of(command):
        with suppress(OSError):  # the process has ended meanwhile
            stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            state, _, group, session, _, foreground, *_ = stat
            if state == "S" and group == foreground and session == str(terminal.pid):
                return True
    return False


@WHO
def test_job_control_works(who: list[str]) -> None:
    """In a nested shell, Ctrl-C ends the command and Ctrl-Z suspends it. Neither signal reaches the server."""
    with terminal(INTERACTIVE) as outer:
        outer.expect("ready> ")
        outer.type(" ".join([*who, *SHELL, *INTERACTIVE]) + "; echo left=$?\n")
        outer.expect("ready> ")
        outer.type("echo create 3 up >ctl; cat virt3/frame\n")
        until(lambda: in_the_foreground(outer, "cat virt3/frame"), "cat")
        outer.type("\x03")
        outer.expect("ready> ")
        outer.type("echo status=$?; cat virt3/frame\n")
        outer.expect("status=130")
        until(lambda: in_the_foreground(outer, "cat virt3/frame"), "cat")
        outer.type("\x1a")
        outer.expect("Stopped")
        outer.type("kill %1; fg; cat version; exit 5\n")
        outer.expect("virtfs 0[.]")
        outer.expect("left=5")


@WHO
def test_ctrl_c_and_ctrl_z_are_the_commands(who: list[str]) -> None:
    with terminal(INTERACTIVE) as outer:
        outer.expect("ready> ")
        outer.type(" ".join([*who, *SHELL]) + " sleep 1000; echo left=$?\n")
        until(lambda: in_the_foreground(outer, "sleep 1000"), "sleep")
        outer.type("\x1a")
        outer.expect("Stopped")
        outer.type("fg; echo left=$?\n")
        until(lambda: in_the_foreground(outer, "sleep 1000"), "sleep")
        outer.type("\x03")
        outer.expect("left=130")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3",
            "there is no /dev/fuse and no /dev/net/tun: as root, run `modprobe -a fuse tun`;"
            " a container needs --device /dev/fuse and --device /dev/net/tun",
        ),
        ("touch $1; chmod 0 $1; mount --bind $1 /dev/net/tun", "as root, run `chmod 0666 /dev/net/tun`"),
        (
            "touch $1; chmod 0 $1; for node in fuse net/tun; do mount --bind $1 /dev/$node; done",
            "no permission to open /dev/fuse (mode 0000) and /dev/net/tun (mode 0000):"
            " as root, run `chmod 0666 /dev/fuse /dev/net/tun`",
        ),
        (
            "exec unshare --user --map-user=1000 --keep-caps -- sh -c '"
            "echo 0 >/proc/sys/user/max_user_namespaces;"
            "exec setpriv --inh-caps=-all --ambient-caps=-all $virtfs shell true'",
            "cannot create namespaces: unshare failed: No space left on device: as root, run `sysctl user.max_",
        ),
        (
            "exec unshare --user --map-user=1000 --keep-caps -- sh -c '"
            "echo 0 >/proc/sys/user/max_net_namespaces;"
            "exec setpriv --inh-caps=-all --ambient-caps=-all $virtfs shell true'",
            ": as root, run `sysctl user.max_net_namespaces=15000`",
        ),
        (
            "mount --bind /dev/null /proc/version",
            "cannot create namespaces: mount /proc failed: Operation not permitted: the /proc of a container hides "
            "files, and the kernel then forbids a new one: it needs --security-opt unmask=ALL",
        ),
        (
            "exec setpriv --bounding-set=-net_admin,-net_broadcast --inh-caps=-all -- $virtfs shell true",
            "root lacks CAP_NET_BROADCAST and CAP_NET_ADMIN here, as in a container: "
            "start the container with --cap-add NET_BROADCAST --cap-add NET_ADMIN",
        ),
        (
            "mkdir $1; echo '#!/bin/sh' >$1/unshare; chmod +x $1/unshare; echo >>$1/unshare "
            "'echo cannot change root filesystem propagation: Permission denied >&2; exit 1';"
            "PATH=$1:$PATH exec $virtfs shell true",
            "propagation: Permission denied: a container may need --security-opt apparmor=unconfined",
        ),
        (
            "mkdir $1; exec unshare --user --map-root-user --mount -- $virtfs mount $1",
            "this network namespace belongs to another user namespace, as in a container that a user starts with "
            "--network host: start it without this option",
        ),
    ],
)
def test_a_system_that_forbids_it_is_told_what_to_change(tmp_path: Path, change: str, sentence: str) -> None:
    done = script(f"{change}; {' '.join(USER)} $virtfs shell true", str(tmp_path / "node"))
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1


_CHECKOUT = f"""
mkdir -p /mnt/made/tools /mnt/made/.venv/bin
cp /mnt/checkout/tools/run /mnt/made/tools
echo '#!/bin/sh
exec {" ".join(HIS_VIRTFS)} "$@"' >/mnt/made/.venv/bin/virtfs
chmod 755 /mnt/made/.venv/bin/virtfs
"""


def test_make_run_introduces_only_a_shell_that_has_started() -> None:
    done = run([*as_user(before=_CHECKOUT), "/mnt/made/tools/run"], SHELL="/bin/pwd")
    assert done.stdout.startswith('A shell with a private virtfs; leave it with "exit". To try:\n')
    assert "/virtfs-" in done.stdout.splitlines()[-1]
    done = run([*as_user(before=f"{_CHECKOUT} chmod 600 /mnt/fuse"), "/mnt/made/tools/run"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "no permission to open /dev/fuse (mode 0600): as root, run" in done.stderr


def test_shell_is_the_users_own() -> None:
    done = run([*USER, *SHELL], SHELL="/bin/pwd")
    assert "/virtfs-" in done.stdout


def shell_script(user: list[str], text: str) -> list[str]:
    """Run a script in `virtfs shell` as an ordinary user. Returns the lines that it prints."""
    done = run([*user, *HIS_VIRTFS, "shell", "sh", "-euc", text])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.splitlines()


IDS = pytest.mark.parametrize("user", [ONE_ID, MANY_IDS], ids=["one-id", "many-ids"])


@IDS
def test_roots_programs_are_found_and_work(user: list[str]) -> None:
    printed = shell_script(
        user,
        """
        echo create 3 up inet 10.0.3.1/24 >ctl
        ip netns add near
        echo create 4 up netns near >ctl
        ip netns exec near ip -brief link show tap4
        tc qdisc replace dev tap3 root pfifo limit 7
        tc qdisc show dev tap3
        nft add table inet mine
        nft list tables
        command -v runuser
        """,
    )
    assert [line.partition(" ")[0] for line in printed] == ["tap4", "qdisc", "table", "/usr/sbin/runuser"]
    assert "limit 7p" in printed[1]


def test_virtfs_is_found() -> None:
    done = run([*USER, *SHELL, "sh", "-euc", "mkdir /run/lab; virtfs mount /run/lab; cat /run/lab/version"])
    assert done.stdout.startswith("virtfs "), done.stderr


_OLD_RUN = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/deep /run/secret
echo kept >/run/deep/file
ln -s deep/file /run/link
touch /run/xtables.lock
chmod 600 /run/xtables.lock
chmod 700 /run/secret
"""


@IDS
@pytest.mark.parametrize("names", ["", "ip netns add near;"], ids=["no-names", "names"])
def test_run_is_its_own(user: list[str], names: str) -> None:
    """/run is writable and has the readable entries of the system's /run. Files created there do not appear outside."""
    ids = "tourist:1000000:65536" if user == MANY_IDS else ""
    user = as_user(ids, f"{_OLD_RUN}{names}")
    inside = """
    cat /run/deep/file /run/link
    ls -A /run | grep -v virtfs-
    ip netns add near
    ip netns add far
    ip netns list | cut -d" " -f1
    echo mine >/run/xtables.lock
    mkdir /run/lab
    """
    done = run([*user, "sh", "-euc", f"{' '.join(HIS_VIRTFS)} shell sh -euc '{inside}'; ls -A /run"])
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.split()
    assert printed[:6] == ["kept", "kept", "deep", "link", "far", "near"]
    assert printed[6:] == ["deep", "link", *(["netns"] if names else []), "secret", "xtables.lock"]


def test_sockets_in_run_are_reached(tmp_path: Path) -> None:
    """Such as the socket of D-Bus in /run/user."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "socket").chmod(0o666)
        listening.listen()
        user = as_user(before=f"{_OLD_RUN} touch /run/there; mount --bind {tmp_path}/socket /run/there")
        connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/there')"
        assert shell_script(user, f'python3 -c "{connect}"; echo connected') == ["connected"]


@WHO
def test_roots_named_namespaces_stay_roots(who: list[str]) -> None:
    """Root can still enter the namespaces that ip-netns(8) has named.

    An ordinary user cannot, so the names are free in the user's shell.
    """
    inside = 'ip netns list | cut -d" " -f1; ip netns add mine; ip netns exec mine true'
    done = script(
        f"mount -t tmpfs tmpfs /run; ip netns add blue; {' '.join([*who, *SHELL])} sh -euc '{inside}'; ls /run/netns"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == (["blue"] if who else ["blue", "blue"])


@WHO
def test_a_file_in_the_mount_is_refused_with_the_reason(who: list[str]) -> None:
    done = run([*who, *SHELL, *VIRTFS, "ls", "--svg", "class.svg"])
    assert (done.returncode, done.stderr) == (
        1,
        'virtfs: "class.svg": Operation not permitted: the working directory is the mount, in which no file can be '
        "made: name another directory; virtfs shell keeps yours if -- stands before the command\n",
    )
    done = run([*who, *SHELL, "sh", "-c", f'cd /; {" ".join(VIRTFS)} ls --svg "$VIRTFS/class.svg"'])
    assert done.stderr.endswith('class.svg": Operation not permitted: no file can be made in a virtfs mount\n')


def test_what_a_server_left_in_the_systems_run_is_not_touched() -> None:
    left = "/run/virtfs-run-left"
    done = script(f"mount -t tmpfs tmpfs /run; mkdir {left}; touch {left}/lock; $virtfs shell true; ls {left}")
    assert (done.returncode, done.stdout) == (0, "lock\n"), done.stderr


def test_several_users_use_it() -> None:
    printed = shell_script(
        MANY_IDS,
        """
        echo create 3 up inet 10.0.3.1/24 backlog 9 owner nobody >ctl
        ping -c1 -W1 10.0.3.2 >/dev/null || true
        runuser -u nobody -- dd if=$VIRTFS/virt3/frame bs=2048 count=1 status=none | xxd -p -l 6
        runuser -u nobody -- sh -c 'echo description his >virt3/ctl'
        runuser -u nobody -- test -r virt3/rx && echo reads rx
        runuser -u daemon -- cat virt3/frame 2>/dev/null || echo daemon does not
        chown daemon virt3/frame
        chgrp daemon virt3/frame
        cat virt3/description
        stat -c %U:%G virt3/frame
        stat -L -c %U:%G virt3/rx
        """,
    )
    assert printed == [
        *("ffffffffffff", "reads rx", "daemon does not", "his", "daemon:daemon", "daemon:daemon"),
    ]


def test_one_id_has_no_other_owner() -> None:
    """No command, chown(2) or state file can set another owner."""
    refused = {
        "create 4 owner daemon": 'owner: this user namespace has no uid 1, "daemon"',
        "create 4 group daemon": 'group: this user namespace has no gid 1, "daemon"',
        "create 4 owner 65534": "owner: this user namespace has no uid 65534",
        "ensure 3 up group 7": "group: this user namespace has no gid 7",
        "virt3 down owner daemon": 'owner: this user namespace has no uid 1, "daemon"',
    }
    lines = " ".join(f"'{line}'" for line in refused)
    *sentences, is_now, chown, told, made, logged = shell_script(
        ONE_ID,
        f"""
        echo create 3 up owner 0 group root >ctl
        for line in {lines}; do sh -c "echo $line >ctl" 2>/dev/null || cat last_error; done
        sed -E 's/(tap)?link [^ ]* ?//g' ctl
        chown 1 virt3/frame 2>&1 || true
        printf '%s\\n' 'create 3 owner daemon' 'create 4 up' >/run/state
        mkdir /run/lab
        {" ".join(HIS_VIRTFS)} mount -o state=/run/state,log=/run/lab.log /run/lab 2>&1
        grep ^create /run/lab/ctl | cut -d" " -f1,2
        grep -o 'line 1: .* no uid 1' /run/lab.log
        """,
    )
    more = "; for more ids in `virtfs shell`, install new{0}map (package uidmap) and add a range to /etc/sub{0}"
    assert sentences == [
        f'"{line}": {why}{more.format("uid" if "uid" in why else "gid")}' for line, why in refused.items()
    ]
    assert is_now == "create 3 up"
    assert chown == "chown: changing ownership of 'virt3/frame': Invalid argument"
    assert (
        told
        == 'virtfs: warning: 1 line of the state file could not be replayed: "virtfs ls -d /run/lab" has the reasons'
    )
    assert made == "create 4"
    assert logged == 'line 1: "create 3 owner daemon": owner: this user namespace has no uid 1'


@pytest.mark.parametrize(
    ("ids", "before", "maps"),
    [
        ("tourist:1000000:10", "", ("0 1", "1 10", "0 1", "1 10")),
        ("54321:1000000:10\nother:5:7\ntourist:x:y\ntourist:2000000:70000", "", ("0 1", "1 10", "11 70000") * 2),
        ("tourist:1000000:10", "mount --bind /bin/false /usr/bin/newuidmap", ("0 1", "0 1", "1 10")),
        ("tourist:1000000:10", "mount --bind /bin/false /usr/bin/newgidmap", ("0 1", "1 10", "0 1")),
        ("tourist:1000000:99999999999", "", ("0 1", "0 1")),
        ("other:1000000:10", "", ("0 1", "0 1")),
    ],
)
def test_its_ids_are_those_of_subuid(ids: str, before: str, maps: tuple[str, ...]) -> None:
    """The ids are those that newuidmap and newgidmap map. The user is root in any case."""
    printed = shell_script(as_user(ids, before), "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g")
    assert [f"{first} {count}" for first, _, count in map(str.split, printed[:-2])] == list(maps)
    assert printed[-2:] == ["0", "0"]


def test_a_shell_in_a_shell_says_where_the_interfaces_are() -> None:
    """A command is quiet, because its caller means it."""
    shell = " ".join(VIRTFS)
    done = run([*SHELL, "sh", "-c", f"echo $VIRTFS; SHELL=/bin/true {shell} shell; {shell} shell true"])
    there = done.stdout.strip()
    assert done.stderr == f"virtfs: you are inside the virtfs shell at {there}; exit leads back to its interfaces\n"


@WHO
def test_a_shell_in_a_shell_has_its_own_named_namespaces(who: list[str]) -> None:
    """A script of a lesson creates the same names as the shell in which it is started."""
    inner = 'ip netns list; ip netns add near; ip netns add own; echo create 3 up netns near >"$VIRTFS/ctl"'
    shell = f"{' '.join(VIRTFS)} shell -- sh -euc '{inner}'"
    done = run([*who, *SHELL, "sh", "-euc", f"ip netns add near; {shell}; ip -n near -brief link; ls /run/netns"])
    assert (done.returncode, done.stderr) == (0, "")
    link, *names = done.stdout.splitlines()
    assert link.split()[0] == "lo"
    assert ("near" in names, "own" in names) == (True, False)
