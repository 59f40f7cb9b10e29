"""topology: the network as a graph that Graphviz draws."""

import os
import select
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from harness.places import DIR
from harness.serving import Mount

from .test_ls_ctl import VIRTFS, run

_SVG = "{http://www.w3.org/2000/svg}"


class Drawn:
    """An SVG image that dot has made: its nodes and edges, each with the lines of its label."""

    def __init__(self, svg: str) -> None:
        root = ElementTree.fromstring(svg)
        self.nodes, self.edges, self.boxes = (self._groups(root, kind) for kind in ("node", "edge", "cluster"))

    def _groups(self, root: ElementTree.Element, kind: str) -> dict[str, list[str]]:
        groups = [group for group in root.iter(f"{_SVG}g") if group.get("class") == kind]
        return {
            group.findtext(f"{_SVG}title", ""): [text.text or "" for text in group.iter(f"{_SVG}text")]
            for group in groups
        }


def drawn(mount: Mount) -> Drawn:
    return Drawn(mount.sh("dot -Tsvg topology"))


@pytest.fixture
def laboratory(mount: Mount) -> Mount:
    mount.ctl('create 3 up inet 10.0.3.1/24 inet6 fd00::1/64 owner nobody description the "third" & <last> \\N')
    mount.ctl("create 4 mtu 1400 impair in loss 1%\ncreate 5 up\ncreate bridge7 up add virt5 inet 10.0.7.1/24")
    mount.ctl("cable 3 4 delay 20ms")
    return mount


def test_it_is_drawn(laboratory: Mount, tmp_path: Path) -> None:
    mount, image = laboratory, tmp_path / "lab.svg"
    seen = drawn(mount)
    assert run(mount, "ls", "-d", DIR, "--svg", str(image)) == (0, "", "")
    told = Drawn(image.read_text())
    mount.ctl("destroy bridge7")
    assert seen.nodes == told.nodes
    assert seen.nodes["virt3"][2:] == ["owner nobody", 'the "third" & <last> \\N']
    assert seen.nodes["tap3"] == ["tap3", "10.0.3.1/24", "fd00::1/64"]
    assert seen.nodes["bridge /bridge7"] == ["bridge7", "up", "10.0.7.1/24"]
    assert seen.edges["virt3--tap3"] == ["up", "mtu 1500"]
    assert seen.edges["virt4--tap4"] == ["down", "mtu 1400", "impair in loss 1%"]
    assert seen.edges["virt3--virt4"] == ["cable", "delay 20ms"]
    assert "tap5--bridge /bridge7" in seen.edges


def test_a_name_of_another_format_is_refused(mount: Mount) -> None:
    remedy = 'choose a name that ends in .svg, or type "dot -Tpng topology" in the mount'
    said = f'virtfs: "lab.PNG": --svg draws in SVG: {remedy}\n'
    assert run(mount, "ls", "-d", DIR, "--svg", "lab.PNG") == (1, "", said)


def test_a_name_with_blanks_that_are_not_quoted_is_no_mount(mount: Mount, tmp_path: Path) -> None:
    remedy = "if it is a part of the name of the image, put that name in quotes"
    said = f'virtfs: "lab.svg" is not a virtfs mount; {remedy}\n'
    assert run(mount, "ls", "--svg", f"{tmp_path}/my", "lab.svg", VIRTFS=DIR) == (1, "", said)
    said = f'virtfs: there is no virtfs mounted at "{tmp_path}"\n'
    assert run(mount, "ls", "--svg", f"{tmp_path}/lab.svg", str(tmp_path)) == (1, "", said)
    said = 'virtfs: "/mnt/virtt" is not a virtfs mount: there is no such directory\n'
    assert run(mount, "ls", "--svg", f"{tmp_path}/lab.svg", "/mnt/virtt") == (1, "", said)
    assert list(tmp_path.iterdir()) == []


def test_names_of_others_are_escaped(mount: Mount) -> None:
    """A namespace, a bridge and a member have names that would end a quoted string or hide in a label."""
    mount.sh("ip netns add 'a\"];x' && ip netns exec 'a\"];x' ip link add name 'b\\' type bridge")
    mount.sh("ip tuntap add name 'c\"\\N' mode tap")
    mount.ctl('create 3 up netns a"];x\nvirt3 bridge b\\\ncreate 4\ncreate bridge7 add c"\\N')
    mount.sh("ip link set tap4 name 'd&amp;<'")
    seen = drawn(mount)
    mount.ctl("destroy bridge7")
    mount.sh("ip link delete 'c\"\\N'; ip netns delete 'a\"];x'")
    assert seen.boxes.popitem()[1] == ['netns a"];x']
    assert sorted(labels[0] for labels in seen.nodes.values()) == sorted(
        ["virt3", "tap3", "virt4", "d&amp;<", "bridge7", 'c"\\N', "b\\"]
    )


def test_it_changes_with_the_network_and_not_with_the_counters(mount: Mount) -> None:
    mount.ctl("create 3 up")
    file = mount.process().open("topology", os.O_RDONLY)
    before = file.read()
    mount.process().open("virt3/frame", os.O_WRONLY).write(bytes(12) + b"\x88\xb5" + bytes(46))
    assert file.poll(select.POLLPRI) == 0
    mount.ctl("virt3 mtu 1300")
    assert file.poll(select.POLLPRI, seconds=20) & select.POLLPRI
    assert b"mtu 1300" not in before
    assert "mtu 1300" in mount.read("topology")


def test_without_dot_a_sentence_says_what_to_install_and_no_image_is_written(mount: Mount, tmp_path: Path) -> None:
    image = tmp_path / "lab.svg"
    said = mount.sh(f"PATH=/nonexistent {VIRTFS} ls --svg {image} 2>&1 || echo $?").splitlines()
    assert said == ['virtfs: drawing needs the program "dot": install Graphviz (package graphviz)', "1"]
    assert not image.exists()
