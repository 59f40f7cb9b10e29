"""antispoof: only frames from the interface's own address can be sent."""

import errno
import os

import pytest
from harness.process import File, fails
from harness.serving import Virt, frame

ALICE = 4001
HIS, ANOTHERS = "02:00:00:00:00:21", "02:00:00:00:00:22"


def sent_by(source: str, number: int = 0, length: int = 60) -> bytes:
    """Return a frame with a source address."""
    whole = frame(length, number)
    return whole[:6] + bytes.fromhex(source.replace(":", "")) + whole[12:]


@pytest.fixture
def given(virt: Virt) -> tuple[Virt, File]:
    """Return an interface with antispoof, and the frame file that its owner has opened."""
    virt.set(f"link {HIS} owner {ALICE} antispoof")
    return virt, virt.open(os.O_RDWR, virt.mount.process(ALICE))


def test_another_source_is_dropped_and_counted(given: tuple[Virt, File]) -> None:
    virt, file = given
    for number in range(3):
        assert file.write(sent_by(ANOTHERS, number)) == 60
    file.write(sent_by("ff:ff:ff:ff:ff:ff"))
    file.write(sent_by(HIS, 7))
    assert virt.host_gets() == sent_by(HIS, 7)
    counts = {name: virt.count(name) for name in ("tx_frames", "tx_bytes", "tx_dropped", "tx_spoofed", "tx_short")}
    assert counts == {"tx_frames": 1, "tx_bytes": 60, "tx_dropped": 4, "tx_spoofed": 4, "tx_short": 0}


def test_strict(given: tuple[Virt, File]) -> None:
    virt, file = given
    virt.set("strict")
    with fails(errno.EPERM):
        file.write(sent_by(ANOTHERS))
    assert (virt.count("tx_spoofed"), virt.count("tx_dropped")) == (1, 1)
    file.write(sent_by(HIS))
    assert virt.host_gets() == sent_by(HIS)


def test_for_root_too(given: tuple[Virt, File]) -> None:
    """antispoof is a property of the interface, so it holds for all users."""
    virt, _ = given
    virt.open(os.O_WRONLY).write(sent_by(ANOTHERS))
    assert virt.count("tx_spoofed") == 1


def test_its_owner_cannot_become_another(given: tuple[Virt, File]) -> None:
    virt, file = given
    mount, before = virt.mount, virt.read("ctl")
    attempts = [
        f"echo link {ANOTHERS} >{virt.name}/ctl",
        f"echo {ANOTHERS} >{virt.name}/address",
        f"echo -antispoof >{virt.name}/ctl",
        f"echo -antispoof link {ANOTHERS} >{virt.name}/ctl",
        f"echo 0 >{virt.name}/antispoof",
        f"echo taplink {ANOTHERS} >{virt.name}/ctl",
    ]
    for attempt in attempts:
        complaint = mount.refused(f"export LC_ALL=C; {attempt}", uid=ALICE)
        assert "not permitted" in complaint or "Permission denied" in complaint, attempt
    assert virt.read("ctl") == before
    file.write(sent_by(ANOTHERS))
    assert virt.count("tx_spoofed") == 1


def test_last_error_says_why(given: tuple[Virt, File]) -> None:
    virt, _ = given
    virt.mount.refused(f"echo link {ANOTHERS} >{virt.name}/ctl", uid=ALICE)
    said = virt.mount.sh("cat last_error", uid=ALICE)
    assert f'"link {ANOTHERS}"' in said
    assert "antispoof" in said


def test_root_gives_him_another_address(given: tuple[Virt, File]) -> None:
    virt, file = given
    virt.set(f"link {ANOTHERS}")
    file.write(sent_by(HIS))
    file.write(sent_by(ANOTHERS, 5))
    assert virt.host_gets() == sent_by(ANOTHERS, 5)
    assert virt.count("tx_spoofed") == 1


def test_off_again(given: tuple[Virt, File]) -> None:
    virt, file = given
    virt.write("antispoof", "0\n")
    file.write(sent_by(ANOTHERS))
    assert virt.host_gets() == sent_by(ANOTHERS)
    virt.mount.sh(f"echo link {ANOTHERS} >{virt.name}/ctl", uid=ALICE)
    assert virt.read("address") == ANOTHERS
    assert virt.count("tx_spoofed") == 0


def test_without_it_any_source_passes(virt: Virt) -> None:
    file = virt.open()
    file.write(sent_by(ANOTHERS))
    assert virt.host_gets() == sent_by(ANOTHERS)
    assert virt.read("antispoof") == "0"


def test_reading_is_not_its_matter(given: tuple[Virt, File]) -> None:
    virt, file = given
    virt.host_sends(sent_by(ANOTHERS))
    assert file.read() == sent_by(ANOTHERS)


def test_each_drop_counts_once(given: tuple[Virt, File]) -> None:
    """A frame that is too short or too long, or sent while down, counts only as such, whatever its source address."""
    virt, file = given
    file.write(sent_by(ANOTHERS)[:13])
    file.write(sent_by(ANOTHERS, 0, 1519))
    file.write(sent_by(HIS, 0, 14))
    virt.set("down")
    file.write(sent_by(HIS))
    counts = {name: virt.count(f"tx_{name}") for name in ("frames", "dropped", "short", "oversize", "down")}
    assert counts == {"frames": 1, "dropped": 3, "short": 1, "oversize": 1, "down": 1}
