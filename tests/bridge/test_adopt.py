"""An interface's addresses and routes move to the bridge and back, and survive a kill in between."""

import errno
import os
import re
import signal
import subprocess
import sys
from random import randrange

import pytest
from harness import told
from harness.fixtures import Alone
from harness.places import DIR, Place
from harness.process import fails
from harness.running import ROOT
from harness.serving import ENVIRONMENT, Mount, Virts
from harness.waiting import PATIENCE, until

from .forking import Forking
from .machine import OWN, ROUTES, clear, machine, reached, reaches

# A child that performs the steps of an adoption, or of its reversal, and kills itself after one of them.
_CHILD = """
import os, signal, socket, sys
from virtfs.host.bridge_adopt import Adoptions, adopt, give_back
from virtfs.host.bridge import find
from virtfs.host.bridge_make import make
from virtfs.host.links import Links
from virtfs.host.rtnl import Rtnl
def once(way, last):
    print(os.getpid(), flush=True)
    rtnl = Rtnl()
    index = find(rtnl, "bridge0") or make(rtnl, Links(), "bridge0")
    port = socket.if_nametoindex("eth0")
    adoptions = Adoptions()
    adoptions.note(rtnl, index, port)
    if way == "back":
        for _ in adopt(rtnl, index, port):
            pass
        steps = give_back(rtnl, index, port, adoptions.staying(rtnl, index, port))
    else:
        steps = adopt(rtnl, index, port)
    for number, step in enumerate(steps, 1):
        if number == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
"""

# Mounts in the foreground, after printing the process id.
_SERVER = """
import os
from virtfs.cli import main, serving
def once(*words):
    print(os.getpid(), flush=True)
    if main.main(words):
        raise SystemExit(1)
"""


def test_addresses_that_stay_are_told(mount: Mount, peer: Place, virts: Virts) -> None:
    machine(mount, peer)
    mount.ctl("create bridge0")
    sentence = 'warning: "eth0" has IP addresses, which do not work while it is in "bridge0"'
    remedy = '"bridge0 add eth0 adopt" moves them to the bridge'
    assert mount.sh(f"{sys.executable} -m virtfs ctl -d . bridge0 add eth0 2>&1") == f"virtfs: {sentence}: {remedy}\n"
    mount.ctl("bridge0 add eth0 adopt")
    assert told.addresses(mount, "eth0") == set()
    virt = virts("bridge bridge0")
    assert virt.tap not in mount.read("last_error")
    virt.write("ctl", "inet 10.0.77.1/24\n")
    assert mount.read("last_error").endswith(f'"bridge0 add {virt.tap} adopt" moves them to the bridge')
    mount.ip("link add br-lan type bridge")
    virt.write("tap/bridge", "br-lan\n")
    assert mount.read("last_error").endswith('while it is in "br-lan": give them to the bridge')
    mount.ctl("destroy bridge0")
    virt.write("ctl", "-inet 10.0.77.1 -bridge\n")
    mount.ip("link delete br-lan")


def test_all_ports_with_addresses_are_told(mount: Mount, virts: Virts) -> None:
    first, second, third = virts("inet 10.0.1.1/24").tap, virts("inet 10.0.2.1/24").tap, virts().tap
    mount.ctl(f"create bridge0 add {first} add {third} add {second}")
    warning = mount.read("last_error")
    assert f'"{first}" and "{second}" have IP addresses, which do not work while they are in "bridge0"' in warning
    (remedy,) = re.findall(r': "(bridge0 .*)" moves them to the bridge', warning)
    mount.ctl(remedy)
    assert told.addresses(mount, "bridge0") == {"10.0.1.1/24", "10.0.2.1/24"}


def test_moved_and_brought_back(mount: Mount, peer: Place) -> None:
    machine(mount, peer)
    routes_before = mount.ip("route") + mount.ip("-6 route")
    mac = told.link(mount, "eth0")["address"]
    held = told.addresses(mount, "eth0")
    assert held > OWN  # `held` also has a link-local address
    mount.ctl("create bridge0 inet 10.9.9.9/24 add eth0 adopt")
    assert told.addresses(mount, "eth0") == set()
    assert told.addresses(mount, "bridge0") == held | {"10.9.9.9/24"}
    assert told.routes(mount, "eth0") == set()
    assert told.routes(mount, "bridge0") == ROUTES
    assert told.link(mount, "bridge0")["address"] == mac
    assert mount.read("bridge/bridge0/ctl") == "add eth0 adopt inet 10.9.9.9/24 up"
    shown = mount.ip("address show dev bridge0")
    assert "bridge0:1" in shown
    assert "dynamic noprefixroute" in shown
    assert "proto dhcp src 10.1.1.3 metric 100" in mount.ip("route show default")
    assert mount.ip("route show 10.60.0.0/16").count("dev bridge0") == 2
    reached(peer)
    reaches(mount)
    mount.ctl("bridge0 delete eth0")
    assert told.addresses(mount, "eth0") == held
    assert told.addresses(mount, "bridge0") == {"10.9.9.9/24"}
    routes_after = (mount.ip("route") + mount.ip("-6 route")).splitlines()
    assert [line for line in routes_after if "bridge0" not in line] == routes_before.splitlines()
    assert told.link(mount, "bridge0")["address"] != mac
    reached(peer)
    reaches(mount)


@pytest.mark.parametrize(
    "lines",
    [
        "create bridge0 up inet 10.1.1.2/24 add eth0 adopt",
        "create bridge0 up inet 10.1.1.2/24\nbridge0 add eth0 adopt",
        "create bridge0 add eth0 adopt\nbridge0 inet 10.1.1.2/24",
    ],
)
@pytest.mark.parametrize("end", ["bridge0 delete eth0", "destroy bridge0"])
def test_an_address_of_bridge_and_member_moves_with_the_member(mount: Mount, peer: Place, lines: str, end: str) -> None:
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    mount.ctl(lines)
    assert told.addresses(mount, "bridge0") >= OWN
    assert mount.read("bridge/bridge0/ctl") == "add eth0 adopt up"
    reached(peer)
    mount.ctl(end)
    assert told.addresses(mount, "eth0") == held
    assert told.routes(mount, "eth0") == ROUTES
    assert not mount.has("bridge0") or told.addresses(mount, "bridge0") == set()
    reached(peer)
    reaches(mount)


def test_a_line_can_keep_an_address_on_the_bridge(mount: Mount, peer: Place) -> None:
    """The routes through its network stay with it, since the kernel refuses them without it."""
    told.cable(mount, "eth0", peer, "10.1.1.1/24")
    mount.ips("address add 10.1.1.2/24 dev eth0\naddress add 172.16.0.2/16 dev eth0\nroute add default via 10.1.1.1")
    mount.ctl("create bridge0 add eth0 adopt")
    mount.ctl("bridge0 delete eth0 inet 10.1.1.2/24")
    assert "10.1.1.2/24" in told.addresses(mount, "bridge0")
    assert told.routes(mount, "bridge0") == {"default 10.1.1.1"}
    assert {a for a in told.addresses(mount, "eth0") if not a.startswith("fe80")} == {"172.16.0.2/16"}


@pytest.mark.parametrize("line", ["bridge0 delete eth0", "destroy bridge0"])
def test_a_member_that_cannot_have_its_routes_again_stays(mount: Mount, peer: Place, line: str) -> None:
    machine(mount, peer)
    mount.ctl("create bridge0 add eth0 adopt")
    mount.ips("address add 10.4.4.2/24 dev bridge0\nroute add 10.40.0.0/16 via 10.4.4.1")
    mount.ip("address delete 10.4.4.2/24 dev bridge0")  # the route stays, but the kernel would not accept it again
    held, routes = told.addresses(mount, "bridge0"), told.routes(mount, "bridge0")
    assert "10.40.0.0/16 10.4.4.1" in routes
    with fails(errno.ENETUNREACH):
        mount.ctl(line)
    refusal = mount.read("last_error")
    assert 'cannot move the route "10.40.0.0/16 via 10.4.4.1" from "bridge0" to "eth0": ' in refusal
    assert told.addresses(mount, "bridge0") == held
    assert told.addresses(mount, "eth0") == set()
    assert told.routes(mount, "bridge0") == routes
    assert told.routes(mount, "eth0") == set()
    assert mount.read("bridge/bridge0/ctl") == "add eth0 adopt up"
    reached(peer)
    reaches(mount)
    (remedy,) = re.findall(r'"(ip route delete [^"]+)" first', refusal)
    mount.sh(remedy)
    mount.ctl(line)
    assert told.addresses(mount, "eth0") >= OWN
    reached(peer)


def test_added_plainly_nothing_moves(mount: Mount, peer: Place) -> None:
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    mount.ctl("create bridge0 up add eth0")
    mount.ctl("bridge0 delete eth0")
    assert told.addresses(mount, "eth0") == held
    assert told.addresses(mount, "bridge0") == set()
    mount.ctl("bridge0 add eth0")
    mount.ctl("bridge0 add eth0 adopt")  # adopts an interface that is already a member
    assert told.addresses(mount, "bridge0") == held
    reached(peer)


@pytest.mark.parametrize("end", ["destroy", "failing line", "unmount"])
def test_other_ways_back(alone: Alone, peer: Place, end: str) -> None:
    mount = alone()
    machine(mount, peer)
    held = told.addresses(mount, "eth0")
    if end == "failing line":
        assert "Invalid argument" in mount.refused("echo create bridge0 add eth0 adopt up add lo >ctl")
    else:
        mount.ctl("create bridge0 add eth0 adopt")
        reached(peer)
    if end == "destroy":
        mount.ctl("destroy bridge0")
    elif end == "unmount":
        assert mount.end() == 0
    assert not mount.has("bridge0")
    assert told.addresses(mount, "eth0") == held
    assert told.routes(mount, "eth0") == ROUTES
    reached(peer)
    reaches(mount)
    clear(mount)


def test_two_adopted_take_their_own_back(mount: Mount, peer: Place, other: Place) -> None:
    machine(mount, peer)
    told.cable(mount, "eth1", other, "10.2.2.1/24")
    mount.ip("address add 10.2.2.2/24 dev eth1")
    mount.ctl("create bridge0 add eth0 adopt add eth1 adopt")
    mount.ip("address add 10.3.3.3/24 dev bridge0")  # as a DHCP client does
    mount.ctl("bridge0 delete eth1")
    assert {a for a in told.addresses(mount, "eth1") if not a.startswith("fe80")} == {"10.2.2.2/24"}
    other.sh("ping -c 1 -W 2 10.2.2.2")
    mount.ctl("bridge0 delete eth0")
    assert told.addresses(mount, "eth0") >= OWN | {"10.3.3.3/24"}
    assert told.addresses(mount, "bridge0") == set()


EVERY = 3  # a run tries every third step, beginning at a random one


def killed(program: Forking, way: str, step: int) -> bool:
    """Perform the steps in a process that kills itself after step `step`. Returns whether that step exists."""
    program.begin(way, step)
    status = program.status()
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("way", ["there", "back"])
def test_killed_after_any_step_nothing_is_lost(alone: Alone, peer: Place, way: str) -> None:
    place = alone()
    assert place.end() == 0
    program, server = Forking(place, _CHILD), Forking(place, _SERVER)
    step, seen = randrange(1, EVERY + 1), set()
    while True:
        machine(place, peer)
        died = killed(program, way, step)
        on = {name: told.addresses(place, name) for name in ("eth0", "bridge0") if place.has(name)}
        assert set().union(*on.values()) >= OWN, f"step {step}"
        assert told.routes(place, "eth0") | told.routes(place, "bridge0") == ROUTES, f"step {step}"
        assert place.ip("route show 10.60.0.0/16").count("nexthop") == 2, f"step {step}"
        if not (torn := _torn(place)):
            reached(peer)
            reaches(place)
        seen.add(torn)
        _completed(place, server, peer, step)
        clear(place)
        if not died:
            break
        step += EVERY
    program.close()
    server.close()
    assert step > 15  # each address and each route takes a step, and there are others
    assert False in seen, "some states are whole"


def mounted_again(place: Place, *options: str) -> "subprocess.Popen[str]":
    """Start a new server in the namespaces of a server that has ended."""
    words = (sys.executable, "-m", "virtfs", "mount", "-f", *options, "/mnt/virt")
    server = place.start(*words, env=ENVIRONMENT, stderr=subprocess.PIPE)
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "is mounted" in line:
            return server
    pytest.fail("virtfs did not mount:\n" + "".join(said))


def _torn(place: Place) -> bool:
    """Return whether the routes are on one interface while ARP replies arrive at the other.

    This state lasts a few milliseconds, unless the process is killed.
    """
    member = place.has("bridge0") and "master" in told.link(place, "eth0")
    return bool(told.routes(place, "eth0") if member else place.has("bridge0") and told.routes(place, "bridge0"))


def _completed(place: Place, server: Forking, peer: Place, step: int) -> None:
    """Complete the adoption in a new mount, then reverse it."""
    pid = int(server.begin("mount", "-f", DIR))
    until(place.mounts, "the mount")
    place.sh("echo ensure bridge0 add eth0 adopt >ctl")
    assert told.addresses(place, "bridge0") >= OWN
    assert told.addresses(place, "eth0") == set(), f"step {step}"
    assert told.routes(place, "bridge0") == ROUTES, f"step {step}"
    assert told.routes(place, "eth0") == set(), f"step {step}"
    reached(peer)
    reaches(place)
    place.sh("echo bridge0 delete eth0 >ctl")
    assert told.addresses(place, "eth0") >= OWN
    assert told.routes(place, "eth0") == ROUTES
    reached(peer)
    os.kill(pid, signal.SIGTERM)
    assert server.status() == 0


def test_killed_daemon_and_its_state_file(alone: Alone, peer: Place) -> None:
    """The state file distinguishes the addresses set on the bridge from adopted ones."""
    mount = alone("state=/mnt/state")
    machine(mount, peer)
    mount.ctl("create bridge0 inet 10.9.9.9/24 add eth0 adopt")
    mount.server.kill()
    mount.server.wait()
    mount.end_programs()
    subprocess.run(mount.command("umount", "--lazy", "/mnt/virt"), check=True)
    reached(peer)
    again = mounted_again(mount, "-o", "state=/mnt/state")
    assert mount.sh("cat bridge/bridge0/ctl") == "add eth0 adopt inet 10.9.9.9/24 up\n"
    reached(peer)
    mount.sh("echo destroy bridge0 >ctl")
    assert not mount.has("bridge0")
    assert "10.9.9.9/24" not in told.addresses(mount, "eth0")
    assert told.addresses(mount, "eth0") >= OWN
    reached(peer)
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE) == 0
    clear(mount)


def test_addresses_move_back_from_the_bridge_of_a_killed_server_without_a_state_file(alone: Alone, peer: Place) -> None:
    """The lines are those of virtfs(1), and the machine stays reachable after each."""
    mount = alone()
    machine(mount, peer)
    mount.ctl("create bridge0 up add eth0 adopt")
    mount.server.kill()
    mount.server.wait()
    mount.end_programs()
    subprocess.run(mount.command("umount", "--lazy", "/mnt/virt"), check=True)
    again = mounted_again(mount)
    page = (ROOT / "man/virtfs.1").read_text()
    lines = re.findall(r"^(?:virtfs ctl|ip link) .*bridge0.*", page, re.MULTILINE)
    assert [line.split()[2] for line in lines] == ["ensure", "bridge0", "destroy", "del"]
    for line in lines:
        mount.sh(line.replace("virtfs", f"{sys.executable} -m virtfs"))
        reached(peer)
    assert not mount.has("bridge0")
    assert told.addresses(mount, "eth0") >= OWN
    assert told.routes(mount, "eth0") == ROUTES
    reaches(mount)
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE) == 0
    clear(mount)
