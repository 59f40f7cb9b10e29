"""debian/ and Containerfile agree with the project. `make deb` builds and tries the package."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness.serving import PROJECT

import virtfs

from . import building

DEBIAN = PROJECT / "debian"
CONTAINERFILE = (PROJECT / "Containerfile").read_text()


def test_the_package_has_the_version_of_the_program() -> None:
    line = (DEBIAN / "changelog").read_text().splitlines()[0]
    assert line.startswith(f"virtfs ({virtfs.__version__}-")


@pytest.mark.parametrize("listing", ["virtfs.docs", "virtfs.examples"])
def test_its_files_exist(listing: str) -> None:
    for pattern in (DEBIAN / listing).read_text().split():
        assert list(PROJECT.glob(pattern)), pattern


def installed_documents() -> dict[Path, Path]:
    """Return the documents of the Debian package: where each is below /usr/share/doc/virtfs, and its source.

    debhelper puts a file or a folder there under its last name (dh_installdocs(1), dh_installexamples(1)).
    """
    assert "install -m 644 CHANGELOG.md $(DESTDIR)/usr/share/doc/virtfs/" in (DEBIAN / "rules").read_text()
    found = {Path("CHANGELOG.md"): PROJECT / "CHANGELOG.md"}
    for listing, folder in (("virtfs.docs", "."), ("virtfs.examples", "examples")):
        for top in (path for pattern in (DEBIAN / listing).read_text().split() for path in PROJECT.glob(pattern)):
            for path in [top, *top.rglob("*")]:
                found[Path(folder) / path.relative_to(top.parent)] = path
    return found


def test_every_link_of_an_installed_page_leads_to_an_installed_file() -> None:
    """test_wheel.py compares the source distribution with the checkout, docs/test_site.py follows the site's links."""
    found = installed_documents()
    pages = {place: path for place, path in found.items() if path.suffix == ".md"}
    assert set((PROJECT / "doc").glob("*.md")) <= set(pages.values())
    links = {
        (str(place), os.path.normpath(place.parent / target))
        for place, path in pages.items()
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text())
        if "://" not in target
    }
    assert len(links) > 100
    places = found.keys() | {folder for place in found for folder in place.parents}
    assert {link for link in links if Path(link[1]) not in places} == set()


def test_a_container_gets_the_capabilities_of_the_service() -> None:
    unit = (PROJECT / "systemd/virtfs@.service").read_text()
    wanted = set(" ".join(re.findall("^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)).split())
    by_default = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"}  # of every container
    assert {f"CAP_{name}" for name in re.findall(r"--cap-add (\w+)", CONTAINERFILE)} == wanted - by_default
    devices = re.findall("^DeviceAllow=(.*) rw$", unit, re.MULTILINE)
    assert re.findall(r"--device (\S+)", CONTAINERFILE) == devices


def test_the_page_about_tests_gives_a_container_the_same_options() -> None:
    page = (PROJECT / "doc/testing.md").read_text()
    with_root = page.partition("\n## In a container\n")[2].partition("\n## ")[0]
    options = r"--(device|cap-add|security-opt) (\S+)"
    ours = set(re.findall(options, CONTAINERFILE))
    dockers = {("security-opt", "systempaths=unconfined")}
    assert set(re.findall(options, with_root)) - dockers == ours
    # The API of Docker, which the runner of GitLab uses, has no word for unmask=/proc/sys: only its command has.
    (text,) = re.findall(r"^```toml\n(.*?)^```$", with_root, re.DOTALL | re.MULTILINE)
    (runner,) = tomllib.loads(text)["runners"]
    keys = {"device": "devices", "cap-add": "cap_add", "security-opt": "security_opt"}
    theirs = {(option, value) for option, key in keys.items() for value in runner["docker"][key]}
    assert theirs == ours - {("security-opt", "unmask=/proc/sys")}


def test_the_captures_of_a_container_outlive_it() -> None:
    page = (PROJECT / "doc/testing.md").read_text()
    without_root = page.partition("\n## Without root in the container\n")[2].partition("\n## ")[0]
    (directory,) = re.findall(r"--virtfs-captures=(\S+)", without_root.partition("\n```\n")[0])
    assert directory in re.findall(r'-v "[^":]*:(\S+)"', without_root), "a directory of the host"


def test_the_page_installs_the_same_packages_everywhere() -> None:
    page = (PROJECT / "doc/testing.md").read_text()
    listed = re.findall(r"install -y --no-install-recommends ((?:.*\\\n)*.*)", page)
    image, job = ({*packages.replace("\\", "").split()} for packages in listed)
    assert job == image | {"python3-dev", "python3-venv"}, "the image has a Python of its own"


def test_an_image_has_no_environment_and_no_history_of_the_checkout() -> None:
    """docker reads only .dockerignore; podman reads it too, if there is no .containerignore."""
    assert {".git", ".venv"} <= {*(PROJECT / ".dockerignore").read_text().split()}
    assert not (PROJECT / ".containerignore").exists()
    page = (PROJECT / "doc/testing.md").read_text()
    assert "\nCOPY . /virtfs\n" in page, "the checkout is the context, so that its .dockerignore counts"
    assert re.search(r"^podman build .* \.\./virtfs$", page, re.MULTILINE)


def test_the_container_has_the_packages_of_the_debian_package() -> None:
    """The first stage has what the package builds with, and the second what it depends on."""
    first, second = re.findall(r"install -y --no-install-recommends \\\n *([\w .+-]+)", CONTAINERFILE)
    control = (DEBIAN / "control").read_text()
    build = re.search(r"^Build-Depends: (.*?)^$", control, re.DOTALL | re.MULTILINE)
    assert build
    of_debian = {"debhelper-compat", "13", "python3-pip"}  # venv has a pip of its own
    assert set(first.split()) == set(re.findall(r"[\w.+-]+", build[1])) - of_debian | {"gcc", "libc6-dev"}
    depends = re.search(r"^Depends: (.*?)^Recommends: (\w\S*),", control, re.DOTALL | re.MULTILINE)
    assert depends
    packages = {*re.findall(r"[\w.+-]+", re.sub(r"\$\{[^}]*\}", "", depends[1])), depends[2]}
    assert packages | {"python3", "libfuse3-3"} == set(second.replace("&&", "").split())


def test_a_directory_named_virtfs_does_not_hide_the_package(tmp_path: Path) -> None:
    """A clone is usually called virtfs, and programs are started beside it. .venv is made by tools/setup."""
    (tmp_path / "virtfs").mkdir()
    said = building.run([sys.executable, "-c", "import virtfs; print(virtfs.Mount.__name__)"], tmp_path)
    assert said == "Mount\n"


def test_the_set_up_explains_itself() -> None:
    said = building.run(["tools/setup", "--help"])
    targets = set(re.findall(r"tools/setup (\w+)", (PROJECT / "Makefile").read_text()))
    (usage,) = re.findall(r"^Usage: tools/setup (.*)$", said, re.MULTILINE)
    assert targets == set(usage.split("|"))
    refused = subprocess.run([PROJECT / "tools/setup", "colour"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith('virtfs: tools/setup does not know "colour"\n')


def test_the_check_of_the_package_needs_no_directory_of_the_machine() -> None:
    """virtfs may be in use at /mnt/virt where `make deb` runs, and a new mount namespace has a copy of that mount."""
    words = (PROJECT / "tools/deb").read_text().split()
    assert not [word for word in words if "/mnt" in word]
    assert 'mount -t virtfs none "$1/virt"' in " ".join(words)


def test_the_page_installs_the_package_that_make_deb_builds() -> None:
    version = re.search(r"^virtfs \((.*?)\)", (DEBIAN / "changelog").read_text())
    assert version
    page = (PROJECT / "doc/install.md").read_text()
    assert f"\nsudo apt-get install ./dist/virtfs_{version[1]}_amd64.deb\n" in page


def test_the_tools_are_executable() -> None:
    scripts = (f"examples/prometheus/{name}.sh" for name in ("serve", "textfile"))
    for name in ("tools/deb", "tools/install", "debian/rules", *scripts):
        assert Path(PROJECT, name).stat().st_mode & 0o111, name


def test_the_workflow_tries_every_python_of_the_metadata() -> None:
    workflow = (PROJECT / ".github/workflows/ci.yml").read_text()
    tried = re.findall(r'"(3\.[0-9]+)"', workflow.partition("python: [")[2].partition("]")[0])
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith("Programming Language")]
    assert tried == [name for name in named if "." in name]
    assert project["requires-python"] == f">={tried[0]}"


def test_the_oldest_libraries_are_those_of_the_metadata() -> None:
    said = building.run([sys.executable, "tools/constraints.py", "oldest"])
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert said.split() == [one.replace(">=", "==") for one in project["dependencies"]]
    assert all("==" in line for line in said.split())
    assert building.run([sys.executable, "tools/constraints.py", "newest"]) == ""
