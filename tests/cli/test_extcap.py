"""virtfs extcap: what Wireshark and tshark see of a mount, and the program that they call."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.captured import Captured, Packet
from harness.fixtures import Alone
from harness.forks import Fork
from harness.places import Place, finished
from harness.running import ROOT, VIRTFS
from harness.serving import Mount, Virt, Virts, frame
from harness.waiting import PATIENCE, until

from virtfs.cli import extcap
from virtfs.cli.main import main

PIPE = subprocess.PIPE
TSHARK = 60.0  # seconds; tshark takes one second of processor time to start
ARP = frame(60)[:12] + b"\x08\x06" + bytes(46)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def name(virt: Virt) -> str:
    return f"virtfs:/mnt/virt:{virt.name}"


def capture(place: Place, interface: str, fifo: Path, *words: str) -> Fork:
    """Start a capture, as Wireshark does."""
    words = ("--capture", "--extcap-interface", interface, "--fifo", str(fifo), *words)
    return place.fork("virtfs", "extcap", *words, stderr=PIPE)


def refusal(program: "Fork | subprocess.Popen[str]", fifo: Path) -> str:
    """Return what a capture says that fails. dumpcap has opened its FIFO."""
    assert fifo.read_bytes() == b""
    _, said = finished(program)
    assert program.returncode == 1
    return said


def until_captured(virt: Virt, seconds: float = PATIENCE) -> None:
    until(lambda: "pcap" in virt.read("clients"), "a capture", seconds)


def until_read(fifo: int, frames: int, data: bytes = b"") -> list[Packet]:
    """Read a capture until it has a number of frames. data: the beginning of the capture."""
    while len(seen := Captured(data).packets if data else []) < frames:
        data += os.read(fifo, 1 << 16)
    return seen


@pytest.mark.timeout(2 * TSHARK)
def test_tshark_lists_an_interface_and_captures_with_a_filter(virts: Virts, tmp_path: Path) -> None:
    virt = virts(f"up inet 10.9.3.1/24 description the {{lab}} net {'x' * 220}")
    script = f"export HOME={tmp_path} TMPDIR={tmp_path} PYTHONPATH={ROOT}; unset XDG_CONFIG_HOME\n"
    virtfs = " ".join(VIRTFS)
    listed = virt.mount.sh(
        f"{script} {virtfs} extcap --install && exec tshark -D 2>/dev/null",
        seconds=TSHARK,
    )
    assert "virtfs:/mnt/virt (all interfaces of /mnt/virt)\n" in listed
    assert f"{name(virt)} ({virt.name}: {virt.tap} up 10.9.3.1/24 # the (lab) net xxx" in listed
    assert f"x, /mnt/virt/{virt.name})\n" in listed  # Wireshark names files after what follows the last slash
    fields = "-T fields -e eth.type -e frame.packet_flags_direction"
    tshark = f"exec tshark -n -i {name(virt)} -f 'ether proto 0x0806' -c1 {fields}"
    program = virt.mount.shell(f"{script} {tshark}", stdout=PIPE, stderr=PIPE)
    until_captured(virt, TSHARK)
    virt.host_sends(frame(60), ARP)
    assert finished(program, TSHARK)[0] == "0x0806\t0x00000001\n"
    assert program.returncode == 0


def test_a_capture_has_both_directions_and_marks_and_ends_with_its_fifo(virt: Virt, fifo: Path) -> None:
    program = capture(virt.mount, name(virt), fifo, "--extcap-capture-filter", "less 99")
    reader = os.open(fifo, os.O_RDONLY)
    until_captured(virt)
    virt.host_sends(frame(60), frame(200))
    virt.open().write(frame(99))
    virt.set("mark the second step")
    first, second, mark = until_read(reader, 3)
    assert [first.frame, second.frame] == [frame(60), frame(99)]
    assert [first.way, second.way] == ["in", "out"]
    assert mark.frame.endswith(b"the second step")
    os.close(reader)
    assert (finished(program), program.returncode) == (("", ""), 0)
    until(lambda: "pcap" not in virt.read("clients"), "the capture has ended")


def test_all_interfaces_and_sigterm(virts: Virts, fifo: Path) -> None:
    one, two = virts(), virts()
    program = capture(one.mount, "virtfs:/mnt/virt", fifo)
    with fifo.open("rb", buffering=0) as reader:
        header = reader.read(1 << 16)  # the capture has begun
        for virt in (one, two):
            virt.host_sends(frame(60, virt.unit))
        assert {packet.interface for packet in until_read(reader.fileno(), 2, header)} == {one.name, two.name}
        program.send_signal(signal.SIGTERM)
        assert (finished(program), program.returncode) == (("", ""), 0)


def test_sigterm_ends_a_capture_while_the_server_is_stopped(alone: Alone, fifo: Path) -> None:
    mount = alone()
    mount.ctl("create 3 up")
    program = capture(mount, "virtfs:/mnt/virt:virt3", fifo)
    with fifo.open("rb", buffering=0):
        until(lambda: "pcap" in mount.read("virt3/clients"), "a capture")
        mount.server.send_signal(signal.SIGSTOP)
        try:
            program.send_signal(signal.SIGTERM)
            assert (finished(program), program.returncode) == (("", ""), 0)
        finally:
            mount.server.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_reader_of_the_capture_outlives_its_program(virt: Virt, fifo: Path, number: signal.Signals) -> None:
    program = capture(virt.mount, name(virt), fifo)
    with fifo.open("rb", buffering=0):
        until_captured(virt)
        program.send_signal(number)
        assert finished(program) == ("", "")
        until(lambda: "pcap" not in virt.read("clients"), "the capture has ended")


def test_an_ignored_ctrl_c_does_not_end_a_capture(virt: Virt, fifo: Path) -> None:
    """As in the program that Wireshark calls. Ctrl-C in a terminal reaches all processes, also the reader of pcap."""
    words = [*VIRTFS, "extcap", "--capture", "--extcap-interface", name(virt), "--fifo", str(fifo)]
    ignoring = """trap '' INT; exec "$@\""""
    program = virt.mount.start("sh", "-c", ignoring, "sh", *words, stderr=PIPE, start_new_session=True)
    reader = os.open(fifo, os.O_RDONLY)
    until_captured(virt)
    os.killpg(program.pid, signal.SIGINT)
    virt.host_sends(frame(60))
    assert [packet.frame for packet in until_read(reader, 1)] == [frame(60)]
    os.close(reader)
    assert (finished(program)[1], program.returncode) == ("", 0)


def test_a_destroyed_interface_ends_a_capture_with_a_sentence(virt: Virt, fifo: Path) -> None:
    program = capture(virt.mount, name(virt), fifo)
    with fifo.open("rb", buffering=0) as reader:
        until_captured(virt)
        virt.mount.ctl(f"destroy {virt.unit}")
        while reader.read(1 << 16):
            pass
        said = finished(program)[1]
    assert said == f'virtfs: {virt.name} of "/mnt/virt" has been destroyed, or the mount has ended\n'
    assert program.returncode == 1


@pytest.mark.parametrize(
    ("interface", "words", "sentence"),
    [
        ("virtfs:/mnt/virt:virt999", (), 'virt999 of "/mnt/virt" no longer exists: refresh the list of interfaces'),
        ("virtfs:/mnt/none:virt3", (), 'there is no mount "/mnt/none": refresh the list'),
        ("nonsense", (), 'there is no mount "nonsense": refresh the list'),
        ("virtfs:/mnt/virt", ("--extcap-capture-filter", "x y"), 'filter "x y": can\'t parse filter expression'),
    ],
)
def test_errors_are_sentences(mount: Mount, fifo: Path, interface: str, words: tuple[str, ...], sentence: str) -> None:
    assert refusal(capture(mount, interface, fifo, *words), fifo).startswith(f"virtfs: {sentence}")


def test_an_ordinary_user_without_the_right(virt: Virt) -> None:
    mount = virt.mount
    mount.sh(f"mkdir -p /mnt/checkout; mount --bind {ROOT} /mnt/checkout; mkfifo -m 666 /mnt/fifo")
    script = f"exec {sys.executable} -m virtfs extcap --capture --extcap-interface {name(virt)} --fifo /mnt/fifo"
    try:
        program = mount.start("sh", "-c", f"cd / && PYTHONPATH=/mnt/checkout {script}", uid=1, stderr=PIPE)
        assert mount.sh("cat /mnt/fifo") == ""
        _, said = finished(program)
    finally:
        mount.sh("umount /mnt/checkout; rm /mnt/fifo")
    remedy = f'root can give you {virt.name} with the command "{virt.name} owner NAME"'
    assert said == f'virtfs: no permission to capture on {virt.name} of "/mnt/virt": {remedy}\n'
    assert program.returncode == 1


def test_a_filter_is_checked_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for expression, said in (("icmp", ""), ("icm p", 'filter "icm p": can\'t parse filter expression')):
        assert main(["extcap", "--extcap-interface", "virtfs:/x", "--extcap-capture-filter", expression]) == 0
        out, complaint = capsys.readouterr()
        assert (out.startswith(said), bool(out), complaint) == (True, bool(said), "")


def test_without_a_call_the_user_is_told_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extcap"]) == 1
    assert "virtfs extcap --install" in capsys.readouterr().err


def test_a_name_is_an_escaped_path() -> None:
    assert extcap._name("/mnt/virt") == "virtfs:/mnt/virt"
    assert extcap._name("/a b:virt3,{ä}") == "virtfs:/a%20b%3Avirt3%2C%7B%C3%A4%7D"
    long = ["/" + 99 * "ä" + end for end in ("/x", "/y")]
    one, two = map(extcap._name, long)
    assert one != two
    assert len(one) < 200


# --- installing


Home = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A function that makes a home directory, in a system with these programs, by their outputs."""

    def make(**programs: str) -> Path:
        programs_there = tmp_path / "bin"
        programs_there.mkdir()
        for program, said in programs.items():
            (programs_there / program).write_text(f"#!/bin/sh\n/bin/cat <<'E'\n{said}\nE\n")
            (programs_there / program).chmod(0o755)
        monkeypatch.setenv("PATH", str(programs_there))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        return tmp_path

    return make


FOLDERS = "Temp:          /tmp\nPersonal Extcap path:  {0}/mine\nGlobal Extcap path:    {0}/all users"


@pytest.mark.parametrize(
    ("programs", "folder"),
    [
        ({}, ".local/lib/wireshark/extcap"),
        ({"dumpcap": "Dumpcap (Wireshark) 4.0.17 (Git ...)"}, ".config/wireshark/extcap"),
        ({"dumpcap": "Dumpcap (Wireshark) 4.2.2."}, ".local/lib/wireshark/extcap"),
        ({"tshark": "Extcap path:  /nowhere", "dumpcap": "Dumpcap 3.6.2"}, ".config/wireshark/extcap"),
        ({"tshark": FOLDERS}, "mine"),
    ],
)
def test_the_folder_is_the_one_where_wireshark_looks(
    home: Home, tmp_path: Path, programs: dict[str, str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = home(**{program: said.format(tmp_path) for program, said in programs.items()}) / folder / "virtfs"
    for _ in range(2):
        assert main(["extcap", "--install"]) == 0
        assert capsys.readouterr().out.startswith(f"{at} is installed")
    assert at.stat().st_mode & 0o777 == 0o755
    assert os.listdir(at.parent) == ["virtfs"]
    said = subprocess.run([at, "--extcap-dlts", "--extcap-interface", "x"], capture_output=True, text=True, check=True)
    assert said.stdout == extcap.DLT
    for what in ("is removed", "is not installed"):
        assert main(["extcap", "--uninstall"]) == 0
        assert capsys.readouterr().out == f"{at} {what}\n"
    assert os.listdir(at.parent) == []


def test_for_all_users(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = home(tshark=FOLDERS.format(tmp_path)) / "all users/virtfs"
    assert main(["extcap", "--install", "--global"]) == 0
    assert at.exists()
    assert main(["extcap", "--uninstall", "--global"]) == 0
    assert not at.exists()
    os.unlink(tmp_path / "bin/tshark")
    assert main(["extcap", "--install", "--global"]) == 1
    assert "tshark, which reports the folder for all users, is not installed" in capsys.readouterr().err


def test_a_folder_of_root(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home() / ".local/lib/wireshark/extcap"
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)
    for task in ("--install", "--uninstall"):
        assert main(["extcap", task]) == 1
        assert capsys.readouterr().err == f'virtfs: extcap: this user cannot write to "{folder}": use sudo\n'
    assert os.listdir(folder) == []


@pytest.mark.parametrize("link", [True, False])
def test_a_file_of_somebody_else_stays(home: Home, link: bool, capsys: pytest.CaptureFixture[str]) -> None:
    at = home() / ".local/lib/wireshark/extcap/virtfs"
    at.parent.mkdir(parents=True)
    at.symlink_to("missing") if link else at.write_text("#!/bin/sh\n")
    for task in ("--install", "--uninstall"):
        assert main(["extcap", task]) == 1
        assert f'"{at}" exists but was not written by virtfs' in capsys.readouterr().err
    assert os.path.lexists(at)
    assert at.is_symlink() == link


@pytest.mark.parametrize("before", ["", "kill -INT $$"], ids=["", "Ctrl-C in a terminal while Python starts"])
def test_the_program_calls_the_virtfs_that_installed_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    folder = home() / "with a blank"
    folder.mkdir()
    (folder / "virtfs").write_text(f'#!/bin/sh\n{before}\necho "$@"\n')
    (folder / "virtfs").chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(folder / "virtfs")])
    assert main(["extcap", "--install"]) == 0
    at = folder.parent / ".local/lib/wireshark/extcap/virtfs"
    said = subprocess.run([at, "--extcap-interfaces"], capture_output=True, text=True, check=True)
    assert said.stdout == "extcap --extcap-interfaces\n"
