"""The examples in other languages are built without a warning, and do what their head comments say."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import compiled
from harness.places import DIR, finished
from harness.serving import Mount, Virt
from harness.waiting import PATIENCE, until

from .test_examples import EXAMPLES

_BUILD: dict[str, Callable[[str, str], list[str]]] = {
    "c": lambda source, program: compiled.command("responder", Path(program).parent),
    "go": lambda source, program: ["go", "build", "-o", program, source],
    "rust": lambda source, program: ["rustc", "--edition", "2021", "-D", "warnings", "-o", program, source],
}
_SOURCE = {"c": "c/responder.c", "go": "go/responder.go", "rust": "rust/responder.rs"}


def build(language: str, source: Path, program: Path) -> None:
    """Build a program in its folder. The cache that go(1) needs is there, too."""
    command = _BUILD[language](str(source), str(program))
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    cache = {"GOCACHE": str(program.parent / "cache"), "GO111MODULE": "off", "HOME": str(program.parent)}
    environment = {"PATH": _path(), **(cache if language == "go" else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=program.parent)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _path() -> str:
    import os

    return os.environ["PATH"]


def test_each_language_is_built() -> None:
    there = {path.parent.name: path for path in EXAMPLES.glob("*/responder.*") if path.suffix != ".pyc"}
    assert there.keys() == _SOURCE.keys()


@pytest.mark.parametrize("language", _SOURCE)
def test_a_responder(virt: Virt, tmp_path: Path, language: str) -> None:
    build(language, EXAMPLES / _SOURCE[language], tmp_path / "responder")
    virt.set(f"inet 10.3.{virt.unit}.1/24")
    address = f"10.3.{virt.unit}.2"
    where = str(virt.unit) if language == "c" else f"{DIR}/{virt.name}"
    responder = virt.mount.start(str(tmp_path / "responder"), where, address, stderr=subprocess.PIPE)
    until(lambda: "frame" in virt.read("clients"), "the responder has opened frame")
    for size in (0, 1, 56, 1472):
        virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} -s {size} {address}")
    virt.mount.sh(f"arping -q -c1 -w{PATIENCE:g} -I {virt.tap} {address}")
    virt.set("down")
    assert responder.wait(PATIENCE) == 1
    assert responder.stderr is not None
    assert "ost is down" in responder.stderr.read()
    usage = virt.mount.start(str(tmp_path / "responder"), stderr=subprocess.PIPE)
    assert usage.wait(PATIENCE) == 2


def test_the_responder_on_the_tap_itself(virt: Virt, tmp_path: Path) -> None:
    program = tmp_path / "responder"
    build("c", EXAMPLES / _SOURCE["c"], program)
    virt.set(f"inet 10.3.{virt.unit}.1/24")
    address = f"10.3.{virt.unit}.2"
    command = ("virtfs", "exec", f"{DIR}/{virt.name}", "--", str(program))
    responder = virt.mount.fork(*command, "fd=3", address, stderr=subprocess.PIPE)
    until(lambda: " fd " in virt.read("clients"), "the responder has the tap")
    virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} {address}")
    number = virt.mount.start(str(program), str(virt.unit), address, stderr=subprocess.PIPE)
    assert "give fd=3 instead of the number" in finished(number)[1]
    virt.mount.ctl(f"destroy {virt.unit}")
    assert finished(responder)[1] == "responder: fd=3: the tap is gone\n"


def test_the_functions_of_the_header(mount: Mount, tmp_path: Path) -> None:
    source = Path(__file__).with_name("virtif_calls.c")
    command = ["gcc", *compiled.CFLAGS, "-I", str(EXAMPLES / "c"), "-o", str(tmp_path / "calls"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert mount.sh(str(tmp_path / "calls")).splitlines() == [
        "virtif_create(3): 0",
        "virtif_create(3): EEXIST",
        '"create 3 up": "virt3" already exists',
        "virtif_create(-1): EINVAL",
        "write: 60",
        "rump_pub_virtif_create(3): EBUSY",
        "rump_pub_virtif_create(3): 0",
        "rump_pub_virtif_create(3): EBUSY",
        "write: 60",
        "rump_pub_virtif_create(4): 0",
        "rump_pub_virtif_create(256): E2BIG",
        "rump_pub_virtif_create(-1): ENOENT",
        "virtif_destroy(3): 0",
        "virtif_fd: -1 -1",
        "virtif_destroy(3): ENXIO",
        "virtif_destroy(-1): EINVAL",
        "virtif_open(3): ENOENT",
        "virtif_create(3): ENOENT",
        "no virtfs is mounted",
    ]


def test_the_header_for_a_user(mount: Mount, tmp_path: Path) -> None:
    """A user attaches to an interface of his own, but creates none."""
    build("c", EXAMPLES / _SOURCE["c"], tmp_path / "responder")
    program = Path(mount.sh("mktemp -d /tmp/virtif.XXXXXX").strip()) / "responder"
    try:
        shutil.copy(tmp_path / "responder", program)
        program.parent.chmod(0o755)
        mount.ctl("create 7 up owner nobody")
        refused = mount.start(str(program), "8", "10.0.8.2", uid=65534, stderr=subprocess.PIPE)
        assert refused.wait(PATIENCE) == 1
        assert refused.stderr is not None
        assert refused.stderr.read() == "responder: virt8: Permission denied\n"
        mount.start(str(program), "7", "10.0.7.2", uid=65534, stderr=subprocess.DEVNULL)
        until(lambda: "frame" in mount.read("virt7/clients"), "the responder has opened frame")
    finally:
        shutil.rmtree(program.parent)
