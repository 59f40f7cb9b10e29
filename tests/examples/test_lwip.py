"""lwip.c answers ping and TCP on a frame file and on the tap itself. tests/docs has lwIP's own driver."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import compiled
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, Mount, Virt
from harness.waiting import until

_EXEC = [sys.executable, "-m", "virtfs", "exec"]


@pytest.fixture(scope="module")
def lwip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compiled.example("lwip", tmp_path_factory.mktemp("lwip")))


@pytest.mark.parametrize("way", ["frame", "exec"])
def test_ping_and_echo(virt: Virt, lwip: str, way: str) -> None:
    virt.set(f"inet 10.3.{virt.unit}.1/24")
    where, address = f"{DIR}/{virt.name}", f"10.3.{virt.unit}.2"
    words = [lwip, where, address] if way == "frame" else [*_EXEC, where, "--", lwip, "fd=3", address]
    program = virt.mount.start(*words, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == f"{address} answers ping, and echoes on TCP port 7\n"
    for size in (0, 56, 1472):
        virt.mount.sh(f"ping -q -c2 -i0.02 -w20 -s {size} {address}")
    echo = f"seq 40000 >/mnt/seq; socat -t20 - TCP:{address}:7 </mnt/seq | cmp - /mnt/seq && echo same"
    assert virt.mount.sh(echo) == "same\n"
    assert virt.read("address") in virt.mount.ip(f"neigh show {address}")
    os.killpg(program.pid, signal.SIGINT)
    finished(program)
    assert program.returncode == -signal.SIGINT
    until(lambda: virt.read("clients").count("\n") == 0, "nobody has the interface")


def test_it_ends_with_its_wire(virt: Virt, lwip: str) -> None:
    program = virt.mount.start(lwip, f"{DIR}/{virt.name}", "10.9.0.2", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline()
    virt.set("down")
    assert finished(program) == ("", f"lwip: {DIR}/{virt.name}: Host is down\n")
    assert program.returncode == 1


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        ("/nowhere", "no such interface: give its number, or the path of its directory"),
        ("fd=9", "this is not a descriptor of virtfs exec; try virtfs exec 3 -- ./lwip fd=3 ADDRESS"),
        ("tun", "PRECONFIGURED_TAPIF must be the name of the tap, such as tap3"),
    ],
)
def test_it_says_what_it_lacks(mount: Mount, lwip: str, wire: str, complaint: str) -> None:
    program = mount.start(lwip, wire, "10.9.0.2", stderr=subprocess.PIPE)
    assert finished(program) == ("", f"lwip: {wire}: {complaint}\n")
    assert program.returncode == 1


def test_the_library_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        compiled.command("lwip", tmp_path),
        env={**os.environ, "PKG_CONFIG_LIBDIR": "/nowhere", "PKG_CONFIG_PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2, "lwip needs the library lwIP (Debian: liblwip-dev, pkg-config)"
    )  # fmt: skip
