"""The examples in other languages are built without a warning, and do what their head comments say."""

import errno
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import compiled
from harness.places import DIR, finished
from harness.process import fails
from harness.serving import Mount, Virt
from harness.waiting import PATIENCE, until

from .test_examples import EXAMPLES

_BUILD: dict[str, Callable[[str, str], list[str]]] = {
    "c": lambda source, program: compiled.command("responder", Path(program).parent),
    "go": lambda source, program: ["go", "build", "-o", program, source],
    "rust": lambda source, program: ["rustc", "--edition", "2021", "-D", "warnings", "-o", program, source],
}
NO_INTERFACE = "no such interface: give its number, or the path of its directory"
BUSY = "another program has it (in virtfs exec, give fd=3 instead)"
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


def test_a_program_is_built_in_another_folder_too(tmp_path: Path) -> None:
    """Also if it is up to date beside its source."""
    sources = tmp_path / "c"
    shutil.copytree(EXAMPLES / "c", sources, ignore=lambda _, names: {"responder", "stream", "lwip"} & {*names})
    (tmp_path / "other").mkdir()
    build = ["make", "-s", "--no-print-directory", "responder", "-f", str(sources / "Makefile"), "-C"]
    for folder in (sources, tmp_path / "other"):
        subprocess.run([*build, str(folder)], check=True)
        assert (folder / "responder").exists()


def test_each_language_is_built() -> None:
    there = {path.parent.name: path for path in EXAMPLES.glob("*/responder.*") if path.suffix != ".pyc"}
    assert there.keys() == _SOURCE.keys()


@pytest.mark.parametrize("language", [*_SOURCE, "python"])
def test_a_responder(virt: Virt, tmp_path: Path, language: str) -> None:
    program = [str(tmp_path / "responder")]
    if language == "python":
        program = [sys.executable, str(EXAMPLES / "responder.py")]
    else:
        build(language, EXAMPLES / _SOURCE[language], tmp_path / "responder")
    virt.set(f"inet 10.3.{virt.unit}.1/24 antispoof")
    address = f"10.3.{virt.unit}.2"
    _answers_by_number(virt, program, address)
    _answers_by_name(virt, program, address)
    _answers_by_directory(virt, program, address)
    _answers_on_the_tap(virt, program, address)
    _refuses_what_is_no_name(virt, program, address)


def _answers(virt: Virt, address: str) -> None:
    """Ping, with frames from the address of virt alone, because of antispoof."""
    virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} {address}")
    assert virt.read("address") in virt.mount.ip(f"neigh show {address}")


def _answers_by_number(virt: Virt, program: list[str], address: str) -> None:
    """It survives Ctrl-Z and fg, and ends when the interface is set down."""
    responder = virt.mount.start(*program, str(virt.unit), address, stderr=subprocess.PIPE)
    until(lambda: "frame" in virt.read("clients"), "the responder has opened frame")
    for size in (0, 1, 56, 1472):
        virt.mount.sh(f"ping -q -c2 -i0.02 -w{PATIENCE:g} -s {size} {address}")
    virt.mount.sh(f"arping -q -c1 -w{PATIENCE:g} -I {virt.tap} {address}")
    responder.send_signal(signal.SIGSTOP)
    until(lambda: Path(f"/proc/{responder.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stops")
    responder.send_signal(signal.SIGCONT)
    _answers(virt, address)
    virt.set("down")
    _, complaint = finished(responder)
    assert (responder.returncode, "ost is down" in complaint) == (1, True), complaint
    virt.set("up")


def _answers_by_name(virt: Virt, program: list[str], address: str) -> None:
    """By the name in the mount, and by the same name as a path. Another one is told that it comes too late."""
    for folder in ("/", DIR):
        responder = virt.mount.shell(f"cd {folder} && exec {shlex.join([*program, virt.name, address])}")
        until(lambda: "frame" in virt.read("clients"), "the responder has opened frame")
        _answers(virt, address)
        second = virt.mount.start(*program, virt.name, address, stderr=subprocess.PIPE)
        assert BUSY in finished(second)[1]
        responder.kill()
        finished(responder)
        until(lambda: virt.read("clients").count("\n") == 0, "nobody has the interface")


def _answers_by_directory(virt: Virt, program: list[str], address: str) -> None:
    responder = virt.mount.start(*program, f"{DIR}/{virt.name}", address)
    until(lambda: "frame" in virt.read("clients"), "the responder has opened frame")
    _answers(virt, address)
    responder.kill()
    finished(responder)
    until(lambda: virt.read("clients").count("\n") == 0, "nobody has the interface")


def _answers_on_the_tap(virt: Virt, program: list[str], address: str) -> None:
    command = ("virtfs", "exec", f"{DIR}/{virt.name}", "--fd", "5", "--", *program)
    responder = virt.mount.fork(*command, "fd=5", address, stderr=subprocess.PIPE)
    until(lambda: " fd " in virt.read("clients"), "the responder has the tap")
    _answers(virt, address)
    virt.set("down")
    virt.set("up")
    _answers(virt, address)
    responder.kill()
    finished(responder)
    until(lambda: " fd " not in virt.read("clients"), "the tap is back")


def _refuses_what_is_no_name(virt: Virt, program: list[str], address: str) -> None:
    """Nothing is created."""
    before = virt.mount.read("ctl")
    usages = [(name, 2, "usage: responder") for name in ("", "fd=", "fd=x", "fd=-1")]
    for name, status, complaint in [
        *usages,
        ("fd3", 1, "fd3"),
        ("4000", 1, f"4000: {NO_INTERFACE}\n"),
        (virt.tap, 1, f"{virt.tap}: {NO_INTERFACE}\n"),
        (f"{DIR}/{virt.name}/frame", 1, f"/frame: {NO_INTERFACE}\n"),
        ("fd=9", 1, "fd=9: not a descriptor of virtfs exec\n"),
    ]:
        refused = virt.mount.start(*program, name, address, stderr=subprocess.PIPE)
        said = finished(refused)[1]
        assert (refused.returncode, complaint in said) == (status, True), (name, said)
    assert virt.mount.read("ctl") == before


@pytest.mark.parametrize("program", [*_SOURCE, "stream"])
def test_the_interface_of_another_user(mount: Mount, tmp_path: Path, program: str) -> None:
    """The message names the file that could not be opened."""
    if program == "stream":
        subprocess.run(compiled.command("stream", tmp_path), check=True, capture_output=True)
    else:
        build(program, EXAMPLES / _SOURCE[program], tmp_path / "responder")
    name = "stream" if program == "stream" else "responder"
    folder = Path(mount.sh("mktemp -d /tmp/virtif.XXXXXX").strip())
    try:
        folder.chmod(0o755)
        shutil.copy(tmp_path / name, folder)
        mount.ctl("create 7 up")
        words = [str(folder / name), "7", *(["10.0.7.2"] if name == "responder" else [])]
        refused = mount.start(*words, uid=65534, stderr=subprocess.PIPE)
        said = finished(refused)[1]
        file = "stream" if program == "stream" else "frame"
        assert re.fullmatch(rf"{name}: 7: .*{DIR}/virt7/{file}: [Pp]ermission denied.*\n", said), said
    finally:
        shutil.rmtree(folder)


def test_the_header_in_cpp(tmp_path: Path) -> None:
    source = Path(__file__).with_name("virtif_calls.c")
    flags = ["-x", "c++", "-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-fsyntax-only"]
    done = subprocess.run(["g++", *flags, "-I", str(EXAMPLES / "c"), str(source)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "errors"),
    [("-std=c11", 1), ("-std=gnu11", 0), ("-std=c11 -D_POSIX_C_SOURCE=200809L", 0)],
)
def test_the_header_after_another_one(flags: str, errors: int) -> None:
    """Without POSIX there is one error, which says what to do."""
    source = '#include <stdio.h>\n#include "virtif.h"\nint main(void) { return 0; }\n'
    command = ["gcc", *flags.split(), "-Wall", "-Wextra", "-fsyntax-only", "-I", str(EXAMPLES / "c"), "-x", "c", "-"]
    said = subprocess.run(command, input=source, capture_output=True, text=True).stderr
    assert said.count("error:") == errors, said
    assert ("include it before all other headers, or compile with -D_POSIX_C_SOURCE=200809L" in said) == bool(errors)


def test_the_sentence_when_the_tap_has_another_holder(virt: Virt, tmp_path: Path) -> None:
    program = tmp_path / "responder"
    build("c", EXAMPLES / _SOURCE["c"], program)
    command = ("virtfs", "exec", f"{DIR}/{virt.name}", "--", str(program))
    responder = virt.mount.fork(*command, "fd=3", "10.9.0.2", stderr=subprocess.PIPE)
    until(lambda: " fd " in virt.read("clients"), "the responder has the tap")
    number = virt.mount.start(str(program), str(virt.unit), "10.9.0.2", stderr=subprocess.PIPE)
    assert "give fd=3 instead" in finished(number)[1]
    responder.kill()
    finished(responder)


@pytest.mark.parametrize("language", [*_SOURCE, "python"])
def test_the_sentence_when_the_tap_is_gone(virt: Virt, tmp_path: Path, language: str) -> None:
    """The errors of the kernel, EFAULT and EBADFD, say nothing to a reader."""
    if language == "python":
        program = [sys.executable, str(EXAMPLES / "responder.py")]
    else:
        program = [str(tmp_path / "responder")]
        build(language, EXAMPLES / _SOURCE[language], Path(program[0]))
    virt.set(f"inet 10.3.{virt.unit}.1/24")
    address = f"10.3.{virt.unit}.2"
    command = ("virtfs", "exec", f"{DIR}/{virt.name}", "--", *program)
    responder = virt.mount.fork(*command, "fd=3", address, stderr=subprocess.PIPE)
    until(lambda: " fd " in virt.read("clients"), "the responder has the tap")
    _answers(virt, address)
    virt.mount.ctl(f"destroy {virt.unit}")
    assert finished(responder)[1].endswith(": fd=3: the tap is gone\n")


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
        "Invalid argument",
        "write: 60",
        "rump_pub_virtif_create(3): EBUSY",
        "virt3/frame: virt3 is already open for reading (exclusive read; see clients)",
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
        f"{DIR}/virt3/frame: No such file or directory",
        "rump_pub_virtif_create(-1): ENOENT",
        "No such file or directory",
        "virtif_open_named(virt3): ENOENT",
        NO_INTERFACE,
        "virtif_open_named(virt4): EBUSY",
        "virt4/frame: virt4 is already open for reading (exclusive read; see clients)",
        "virtif_create(3): ENOENT",
        "no virtfs is mounted",
        "virtif_open(3): ENOENT",
        "no virtfs is mounted",
        "virtif_open_named(3): ENOENT",
        "no virtfs is mounted",
        "virtif_open_stream(virt3): ENOENT",
        "no virtfs is mounted",
        "virtif_open_named(/nowhere): ENOENT",
        NO_INTERFACE,
    ]


def test_the_reason_for_a_user_who_may_not_create(mount: Mount, tmp_path: Path) -> None:
    """Permission is denied by the kernel. The last error of the user is about an earlier command."""
    source = tmp_path / "create.c"
    source.write_text(
        '#include "virtif.h"\nint main(void) { return virtif_create(3) && puts(virtif_error()) == EOF; }\n'
    )
    program = Path(mount.sh("mktemp -d /tmp/virtif.XXXXXX").strip()) / "create"
    try:
        command = ["gcc", *compiled.CFLAGS, "-I", str(EXAMPLES / "c"), "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        program.parent.chmod(0o755)
        mount.ctl("create 7 up owner nobody")
        with fails(errno.ERANGE):
            user = mount.process(65534)
            user.call(Path(f"{DIR}/virt7/mtu").write_text, "1")
        created = mount.start(str(program), uid=65534, stdout=subprocess.PIPE)
        assert finished(created)[0] == f"{DIR}/ctl: Permission denied\n"
    finally:
        shutil.rmtree(program.parent)


def test_the_header_for_a_user(mount: Mount, tmp_path: Path) -> None:
    """A user attaches to an interface of his own."""
    build("c", EXAMPLES / _SOURCE["c"], tmp_path / "responder")
    program = Path(mount.sh("mktemp -d /tmp/virtif.XXXXXX").strip()) / "responder"
    try:
        shutil.copy(tmp_path / "responder", program)
        program.parent.chmod(0o755)
        mount.ctl("create 7 up owner nobody")
        refused = mount.start(str(program), "8", "10.0.8.2", uid=65534, stderr=subprocess.PIPE)
        assert refused.wait(PATIENCE) == 1
        assert refused.stderr is not None
        assert refused.stderr.read() == f"responder: 8: {NO_INTERFACE}\n"
        mount.start(str(program), "7", "10.0.7.2", uid=65534, stderr=subprocess.DEVNULL)
        until(lambda: "frame" in mount.read("virt7/clients"), "the responder has opened frame")
    finally:
        shutil.rmtree(program.parent)
