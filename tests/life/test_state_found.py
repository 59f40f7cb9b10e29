"""Taps and bridges of the host in the state file."""

import errno
from pathlib import Path

import pytest
from harness import told
from harness.lasting import Lasting, LastingOnes
from harness.places import Place
from harness.process import fails
from harness.serving import Mount
from harness.waiting import until

STATE = "/mnt/state"
OPTION = f"state={STATE}"
MAKE = {
    "tap3": "ip tuntap add tap3 mode tap; ip address add 10.77.0.1/24 dev tap3",
    "bridge0": "ip link add bridge0 type bridge; ip address add 10.77.0.1/24 dev bridge0",
}
LINES = {"tap3": "create 3 inet 10.0.3.1/24 up", "bridge0": "create bridge0 inet 10.0.3.1/24 up"}
TARGETS = {"tap3": "3", "bridge0": "bridge0"}
ENTRIES = {"tap3": "virt3", "bridge0": "bridge/bridge0"}


def kept(mount: Mount) -> str:
    """Return the text of the state file."""
    return mount.root.call(Path.read_text, Path(STATE))


def using(lasting: LastingOnes, name: str) -> Lasting:
    """Return a mount with a state file that uses a tap or bridge of the host."""
    mount = lasting(OPTION)
    mount.sh(MAKE[name])
    mount.ctl(LINES[name])
    assert kept(mount).startswith(f"# found: {name}\n")
    return mount


@pytest.mark.parametrize("name", MAKE)
def test_create_warns_of_what_existed_before(lasting: LastingOnes, name: str) -> None:
    """A typing error in the number would give a tap of the host to a user."""
    mount = using(lasting, name)
    sentence = f'"{name}" existed before: virtfs uses it with its settings, and destroy leaves it as it was'
    assert mount.read("last_error") == f"warning: {sentence}"
    until(lambda: sentence in "".join(mount.log), "the warning in the log")
    mount.ctl(f"destroy {TARGETS[name]}\ncreate 9")
    assert told.addresses(mount, name) >= {"10.77.0.1/24"}
    assert "# found" not in kept(mount)


@pytest.mark.parametrize("name", MAKE)
def test_the_next_mount_uses_it_again_without_a_warning(lasting: LastingOnes, name: str) -> None:
    mount = using(lasting, name)
    mount.end()
    mount.again(OPTION)
    assert {"10.77.0.1/24", "10.0.3.1/24"} <= told.addresses(mount, name)
    assert mount.read("last_error") == "ok"
    assert "WARNING" not in "".join(mount.log)


@pytest.mark.parametrize("name", MAKE)
def test_the_next_mount_warns_if_it_finds_one_that_it_had_made_itself(lasting: LastingOnes, name: str) -> None:
    mount = lasting(OPTION)
    mount.ctl(LINES[name])
    mount.end()
    mount.sh(MAKE[name])
    mount.again(OPTION)
    sentence = f'"{name}" existed before: virtfs uses it with its settings, and destroy leaves it as it was'
    assert mount.read("last_error") == f"warning: {sentence}"
    assert kept(mount).startswith(f"# found: {name}\n")
    mount.end()
    mount.again(OPTION)
    assert mount.read("last_error") == "ok"


def test_the_next_mount_names_several(lasting: LastingOnes) -> None:
    mount = lasting(OPTION)
    mount.ctl("".join(f"create {n}\n" for n in range(5)) + "create bridge0")
    mount.end()
    mount.sh("for n in 0 1 2 3 4; do ip tuntap add tap$n mode tap; done; ip link add bridge0 type bridge")
    mount.again(OPTION)
    sentence = "existed before: virtfs uses them with their settings, and destroy leaves them as they were"
    assert mount.read("last_error") == f'warning: "tap0", "tap1", "tap2", "tap3" and 2 more {sentence}'


@pytest.mark.parametrize("name", MAKE)
def test_retry_warns_of_what_existed_before(lasting: LastingOnes, name: str) -> None:
    mount = lasting(OPTION)
    mount.end()
    refused = {"tap3": "create 3 netns late", "bridge0": "create bridge0 add late"}[name]
    mount.root.call(Path.write_text, Path(STATE), f"{refused}\n")
    mount.again(OPTION)
    mount.sh(MAKE[name])
    mount.sh("ip netns add late; ip tuntap add late mode tap")
    mount.ctl("retry")
    assert mount.read("last_error").startswith(f'warning: "{name}" existed before: ')
    mount.ctl(f"destroy {TARGETS[name]}")
    mount.sh("ip netns delete late; ip link delete late")


@pytest.mark.parametrize("name", MAKE)
def test_it_is_not_made_again_when_it_is_gone(lasting: LastingOnes, name: str) -> None:
    """virtfs does not make a persistent tap of its own with the addresses that the host's tap had."""
    mount = using(lasting, name)
    mount.end()
    mount.ip(f"link delete {name}")
    for _ in range(2):  # the second mount has the failed line from the first
        mount.again(OPTION)
        assert not mount.has(name)
        text = mount.read("ctl")
        assert text.startswith(f"# found: {name}\n# not replayed: {LINES[name].partition(' inet')[0]} ")
        assert f'there is no "{name}" now, which existed before virtfs used it: make it and write "retry"' in text
        mount.end()
    mount.again(OPTION)
    mount.sh(MAKE[name])
    mount.ctl("retry")
    assert {"10.77.0.1/24", "10.0.3.1/24"} <= told.addresses(mount, name)
    assert kept(mount).startswith(f"# found: {name}\ncreate ")


@pytest.mark.parametrize("name", MAKE)
def test_create_makes_one_of_virtfs_in_its_place(lasting: LastingOnes, name: str) -> None:
    mount = using(lasting, name)
    mount.end()
    mount.ip(f"link delete {name}")
    mount.again(OPTION)
    mount.ctl(f"create {TARGETS[name]}")
    assert "10.77.0.1/24" not in told.addresses(mount, name)
    assert not {"found", "replayed"} & set(kept(mount).replace(":", "").split())
    mount.end()
    assert not mount.has(name)


def test_one_in_the_namespace_of_a_process_is_lost(lasting: LastingOnes, elsewhere: Place) -> None:
    """A process ID means another process after a restart, so its tap cannot be found again. Its line stays."""
    mount = lasting(OPTION)
    elsewhere.ip("tuntap add tap5 mode tap")
    mount.ctl(f"create 5 netns {elsewhere.pid} description far")
    file = kept(mount)
    assert file.startswith("# found: tap5\ncreate 5 ")
    for _ in range(2):
        mount.end()
        mount.again(OPTION)
        assert kept(mount) == file
        assert not mount.has("tap5")
        with fails(errno.ENXIO):
            mount.ctl("virt5 up")
    assert elsewhere.has("tap5")
    mount.ctl("destroy 5\ncreate 5")
    assert mount.has("tap5")
    assert "# found" not in kept(mount)
