"""debian/ and Containerfile agree with the project. `make deb` builds and tries the package."""

import re
from pathlib import Path

import pytest
from harness.serving import PROJECT

import virtfs

DEBIAN = PROJECT / "debian"
CONTAINERFILE = (PROJECT / "Containerfile").read_text()


def test_the_package_has_the_version_of_the_program() -> None:
    line = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert line.startswith(f"virtfs ({virtfs.__version__}-")


@pytest.mark.parametrize("listing", ["virtfs.docs", "virtfs.examples"])
def test_its_files_exist(listing: str) -> None:
    for pattern in (DEBIAN / listing).read_text().split():
        assert list(PROJECT.glob(pattern)), pattern


def test_a_container_gets_the_capabilities_of_the_service() -> None:
    unit = (PROJECT / "systemd/virtfs@.service").read_text()
    wanted = set(" ".join(re.findall("^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)).split())
    by_default = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"}  # of every container
    assert {f"CAP_{name}" for name in re.findall(r"--cap-add (\w+)", CONTAINERFILE)} == wanted - by_default
    devices = re.findall("^DeviceAllow=(.*) rw$", unit, re.MULTILINE)
    assert re.findall(r"--device (\S+)", CONTAINERFILE) == devices


def test_the_container_builds_with_the_packages_of_the_set_up() -> None:
    """The first stage has what tools/setup would ask for, and the second what the package depends on."""
    first, second = re.findall(r"install -y --no-install-recommends \\\n *([\w .+-]+)", CONTAINERFILE)
    setup = (PROJECT / "tools/setup").read_text()
    always = setup.partition("need fuse3 have")[2].partition('\nif [ "$what"')[0]
    needed = {"fuse3", "make", "python3-dev", "python3-venv", *re.findall(r"^need (\S+)", always, re.MULTILINE)}
    assert set(first.split()) == needed - {"util-linux"}  # essential
    depends = re.search(r"^Depends: (.*?)^Recommends: (\w\S*),", (DEBIAN / "control").read_text(), re.DOTALL | re.MULTILINE)
    assert depends
    packages = {word for word in re.findall(r"[\w.+-]+", re.sub(r"\$\{[^}]*\}", "", depends[1]))} | {depends[2]}
    assert packages | {"python3", "libfuse3-3"} == set(second.replace("&&", "").split())


def test_the_tools_are_executable() -> None:
    for name in ("tools/deb", "tools/install", "debian/rules", "examples/prometheus/serve.sh"):
        assert Path(PROJECT, name).stat().st_mode & 0o111, name
