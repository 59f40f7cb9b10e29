"""`virtfs shell --net`: programs in the shell reach a server and a resolver of the outer namespace, without root."""

import subprocess
from pathlib import Path

import pytest
from harness.running import NEW_NETWORK, ROOT, USER, script

_PRIVATE = [*NEW_NETWORK, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
_USER = " ".join(USER)
# A host: it has the address 192.0.2.9, a default route, a web server, and a resolver.
_HOST = """
mount -t tmpfs -o mode=1777 tmpfs /mnt
mkdir -m 777 /mnt/site; echo hello >/mnt/site/page
ip link set lo up
ip link add up0 type veth peer name up1
ip address add 192.0.2.9/24 dev up0
ip link set up1 up; ip link set up0 up
ip route add default via 192.0.2.1
echo "nameserver $1" >/mnt/resolv.conf
mount --bind /mnt/resolv.conf "$(realpath /etc/resolv.conf)"
export TMPDIR=/mnt
dnsmasq -k --pid-file --no-resolv --no-hosts --address=/lab.test/192.0.2.9 --listen-address="$1" --bind-interfaces &
python3 -m http.server --directory /mnt/site --bind 192.0.2.9 8000 >/dev/null 2>&1 &
until ss -Hltn | grep -q :8000 && ss -Hlun | grep -q :53; do sleep 0.05; done
"""
_FETCH = "import urllib.request as u; print(u.urlopen('http://lab.test:8000/page', timeout=20).read().decode().strip())"


def on_host(text: str, resolver: str = "192.0.2.9") -> subprocess.CompletedProcess[str]:
    """Run a script on the host. Everything on it ends with the script."""
    return script(_HOST + text, resolver, before=_PRIVATE)


@pytest.mark.parametrize("resolver", ["192.0.2.9", "127.0.0.1"])
@pytest.mark.parametrize("who", [_USER, ""], ids=["user", "root"])
def test_a_name_is_answered_and_a_page_is_fetched(who: str, resolver: str) -> None:
    done = on_host(
        f"""
        {who} $virtfs shell --net -- python3 -c "{_FETCH}"
        until ! pgrep passt >/dev/null; do sleep 0.05; done
        ls /mnt
        """,
        resolver,
    )
    *_, fetched, first, second = done.stdout.split()
    assert (done.returncode, fetched, {first, second}) == (0, "hello", {"resolv.conf", "site"}), done.stderr


def test_the_interface_of_the_internet_is_no_part_of_a_laboratory() -> None:
    """It is not saved, so each shell can load what another has saved, and `destroy all` leaves it in place."""
    done = on_host(
        f"""
        cat <<'EOF' >/mnt/site/inside.sh
        cat ctl
        echo destroy all >ctl
        cat "$1" >ctl
        cat ctl >"$2"
        python3 -c "{_FETCH}"
EOF
        cd /mnt/site
        echo create 3 up description mine >lab.ctl
        {_USER} $virtfs shell --net sh -e $PWD/inside.sh $PWD/lab.ctl $PWD/saved.ctl
        {_USER} $virtfs shell --net sh -e $PWD/inside.sh $PWD/saved.ctl $PWD/again.ctl
        cmp saved.ctl again.ctl && cat again.ctl
        """
    )
    comment = "# virt255 is the interface of virtfs shell --net"
    *lines, lab, last = done.stdout.splitlines()
    assert [*lines, last] == [comment, "hello", comment, "hello", comment], done.stdout + done.stderr
    assert lab.startswith("create 3 ")
    assert lab.endswith(" description mine")


def test_nothing_is_left_after_a_kill() -> None:
    done = on_host(
        f"""
        {_USER} $virtfs shell --net sh -c 'echo up >/mnt/site/up; exec sleep 1000' & shell=$!
        until test -e /mnt/site/up; do sleep 0.05; done
        pgrep passt >/dev/null && echo passt runs
        kill -9 $shell
        until ! pgrep passt >/dev/null; do sleep 0.05; done
        echo no passt
        """
    )
    assert done.stdout.splitlines() == ["passt runs", "no passt"], done.stderr


def test_a_cable_reaches_a_mount_on_another_machine() -> None:
    done = on_host(
        f"""
        mkdir /mnt/virt
        $virtfs mount /mnt/virt
        echo create 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
        echo cable 3 tcp-listen:7777 >/mnt/virt/ctl
        {_USER} $virtfs shell --net sh -ec '
            echo create 3 up inet 10.0.3.2/24 >ctl
            echo cable 3 tcp:192.0.2.9:7777 >ctl
            ping -qc1 -w20 10.0.3.1 >/dev/null
            echo joined
        '
        """
    )
    assert done.stdout == "joined\n", done.stderr


def test_the_loopback_of_the_host_is_not_reached() -> None:
    """The servers on the host's 127.0.0.1 stay private: the gateway does not stand for the host."""
    connect = "import socket; socket.create_connection(('10.0.2.2', 8001), 3)"
    done = on_host(
        f"""
        python3 -m http.server --bind 127.0.0.1 8001 >/dev/null 2>&1 &
        until ss -Hltn | grep -q :8001; do sleep 0.05; done
        {_USER} $virtfs shell --net python3 -c "{connect}" 2>&1 || echo refused
        """
    )
    assert done.stdout.splitlines()[-1] == "refused"


def test_without_a_route() -> None:
    done = script(f"{_USER} $virtfs shell --net true", before=_PRIVATE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("virtfs: no Internet: passt: "), done.stderr


def test_without_passt(tmp_path: Path) -> None:
    done = script(f"PATH={tmp_path}; $virtfs shell --net true", before=_PRIVATE)
    sentence = "virtfs: --net needs passt(1), which is not installed: install the package passt\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_a_ping_needs_the_sysctl_that_the_documents_name() -> None:
    ping = f"{_USER} $virtfs shell --net -- sh -c 'ping -c1 -W2 192.0.2.9 >/dev/null; echo $?'"
    change = 'sysctl -qw net.ipv4.ping_group_range="0 2147483647"'
    assert change.replace("-qw", "-w") in (ROOT / "doc/troubleshooting.md").read_text()
    done = on_host(f"sysctl -qw net.ipv4.ping_group_range='1 0'\n{ping}\n{change}\n{ping}")
    assert done.stdout == "1\n0\n", done.stderr
