"""`make install` beside a package and other installations, and when it cannot go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.serving import PROJECT
from harness.users import as_user

from . import building

HELPERS = ("mount.virtfs", "mount.fuse.virtfs")  # the programs that mount(8) looks for

# A Python that makes an environment whose pip does $PIP_DOES; it passes everything else to the Python $REAL.
_PYTHON = """#!/bin/sh
case $2 in
    venv)
        mkdir -p .venv/bin
        ln -s "$0" .venv/bin/python
        printf '#!/bin/sh\\n%s\\n' "$PIP_DOES" >.venv/bin/pip
        chmod +x .venv/bin/pip ;;
    pip) eval "$PIP_DOES" ;;
    *) exec "$REAL" "$@" ;;
esac
"""
_FAILS = "echo no network >&2; exit 1"
_CTRL_C = "kill -INT $PPID; exit 1"  # the terminal interrupts bash too, and pip ends with the status of a failure
_ADVICE = "pip has failed. Without a network, give it a directory of wheels (doc/install.md): PIP_NO_INDEX=1"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    return building.plain_wheel(building.sources(directory), directory / "wheel")


class Host:
    """A directory in which virtfs is installed with several PREFIXes, and which has an sbin of its own."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self.directory = directory
        self.sbin = directory / "sbin"
        self.sbin.mkdir()
        self._wheel = wheel

    def make(self, target: str, prefix: str = "local", **environment: str) -> subprocess.CompletedProcess[str]:
        """Do the work of `make install` or `make uninstall` with this PREFIX, and return its status and output."""
        where = {"PREFIX": str(self.directory / prefix), "SBINDIR": str(self.sbin), "PYTHON": sys.executable}
        where |= {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
        words = [self._wheel] if target == "install" else ["--remove"]
        return subprocess.run(
            [PROJECT / "tools/install", *words],
            cwd=self.directory,
            env=os.environ | where | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )

    def must(self, target: str, prefix: str = "local") -> str:
        """Do the same, which must succeed, and return the output."""
        done = self.make(target, prefix)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def program(self, prefix: str) -> Path:
        return self.directory / prefix / "lib/virtfs/bin/mount.virtfs"

    def package(self) -> None:
        """Install files as the Debian package does: its links are relative (debhelper makes them so)."""
        self.program("usr").parent.mkdir(parents=True, exist_ok=True)
        self.program("usr").write_text("#!/bin/sh\n")
        self.program("usr").chmod(0o755)
        for name in HELPERS:
            (self.sbin / name).unlink(missing_ok=True)
            (self.sbin / name).symlink_to("../usr/lib/virtfs/bin/mount.virtfs")

    def remove_package(self) -> None:
        self.program("usr").unlink()
        for name in HELPERS:
            (self.sbin / name).unlink()

    def mounts_with(self) -> set[Path | None]:
        """Return the programs that mount(8) runs, None for a type that it does not know."""
        found = (self.sbin / name for name in HELPERS)
        return {path.resolve() if path.exists() else None for path in found}


@pytest.fixture
def host(tmp_path: Path, wheel: Path) -> Host:
    return Host(tmp_path, wheel)


def test_the_links_of_a_package_stay(host: Host) -> None:
    host.package()
    said = host.must("install")
    for name in HELPERS:
        assert f"virtfs: {host.sbin}/{name} still leads to {host.program('usr')}\n" in said
    assert "remove the other and run make install again" in said
    assert host.mounts_with() == {host.program("usr")}
    host.must("uninstall")
    assert host.mounts_with() == {host.program("usr")}


def test_a_package_takes_the_links_over_and_keeps_them(host: Host) -> None:
    assert "still leads to" not in host.must("install")
    assert host.mounts_with() == {host.program("local")}
    host.package()
    host.must("uninstall")
    assert host.mounts_with() == {host.program("usr")}
    assert not (host.directory / "local").exists()


def test_when_a_package_is_removed_another_installation_makes_the_links_again(host: Host) -> None:
    host.package()
    host.must("install")
    host.remove_package()
    assert host.mounts_with() == {None}
    assert "still leads to" not in host.must("install")
    assert host.mounts_with() == {host.program("local")}
    host.must("uninstall")
    assert os.listdir(host.sbin) == []


def test_the_first_of_two_prefixes_keeps_the_links(host: Host) -> None:
    host.must("install", "opt")
    assert "still leads to" in host.must("install", "local")
    host.must("uninstall", "local")
    assert host.mounts_with() == {host.program("opt")}
    host.must("uninstall", "opt")
    assert os.listdir(host.sbin) == []


def test_uninstall_says_how_another_installation_gets_the_links(host: Host) -> None:
    host.must("install", "opt")
    host.must("install", "local")
    said = host.must("uninstall", "opt")
    assert f"virtfs: removed, with {host.sbin}/{HELPERS[0]} {host.sbin}/{HELPERS[1]}, where mount(8) looks:\n" in said
    assert "if another installation is left, run make install in its checkout" in said
    assert host.mounts_with() == {None}
    host.must("install", "local")
    assert host.mounts_with() == {host.program("local")}
    host.package()
    assert host.must("uninstall", "local") == "", "the links are those of the package"


def test_uninstall_names_links_that_lead_nowhere(host: Host) -> None:
    """Links as `systemctl enable` and `systemctl link` make them, to files of this installation and of others."""
    root, units = host.directory / "image", host.directory / "local/lib/systemd/system"
    assert host.make("install", DESTDIR=str(root)).returncode == 0
    etc = root / "etc/systemd/system"
    (etc / "multi-user.target.wants").mkdir(parents=True)
    enabled, linked = etc / "multi-user.target.wants/virtfs@mnt-virt.service", etc / "virtfs-metrics@.timer"
    enabled.symlink_to(units / "virtfs@.service")
    linked.symlink_to(units / "virtfs-metrics@.timer")
    (root / "etc/tmpfiles.d").mkdir()
    made = root / "etc/tmpfiles.d/virtfs.conf"
    made.symlink_to(host.directory / "local/lib/tmpfiles.d/virtfs.conf")
    (etc / "virtfs@.service").symlink_to("/opt/other/lib/systemd/system/virtfs@.service")
    (etc / "sshd.service").symlink_to("/gone")
    done = host.make("uninstall", DESTDIR=str(root))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-4:] == [
        "virtfs: these links lead nowhere now: remove them with rm, and run systemctl daemon-reload",
        f"  {enabled}",
        f"  {linked}",
        f"  {made}",
    ]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PIP_NO_INDEX": "0"}, "pip fetches the libraries, which needs the network and a minute or two"),
        ({"PIP_FIND_LINKS": "/srv/wheels"}, "pip takes the libraries from /srv/wheels, which needs a minute or two"),
    ],
)
def test_it_says_where_the_libraries_come_from(
    host: Host, python: Path, environment: dict[str, str], said: str
) -> None:
    done = host.make("install", PYTHON=str(python), PIP_DOES=_FAILS, REAL=sys.executable, **environment)
    assert done.stdout == f"virtfs: installing into {host.directory}/local; {said}\n"


@pytest.mark.parametrize("to", ["{0}/local/lib/virtfs/bin/mount.virtfs", "../local/lib/virtfs/bin/mount.virtfs"])
def test_a_link_made_by_hand_is_removed_with_what_it_leads_to(host: Host, to: str) -> None:
    host.package()
    host.must("install")
    host.remove_package()
    (host.sbin / HELPERS[0]).symlink_to(to.format(host.directory))
    host.must("uninstall")
    assert os.listdir(host.sbin) == []


def test_a_link_that_leads_nowhere_is_replaced_and_a_program_is_not(host: Host) -> None:
    dangling, program = (host.sbin / name for name in HELPERS)
    dangling.symlink_to("../gone/mount.virtfs")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    host.must("install")
    assert dangling.resolve() == host.program("local")
    host.must("uninstall")
    assert os.listdir(host.sbin) == [program.name]
    assert program.read_text() == "#!/bin/sh\n"


def test_the_package_leaves_the_links_to_usr_local(host: Host) -> None:
    """The package has replaced them. dpkg sets DPKG_ROOT; see dpkg(1), --force-script-chrootless."""
    postrm: list[str | Path] = ["sh", PROJECT / "debian/virtfs.postrm", "remove"]
    sbin, program = host.directory / "usr/sbin", host.directory / "usr/local/lib/virtfs/bin/mount.virtfs"
    sbin.mkdir(parents=True)
    building.run(postrm, DPKG_ROOT=str(host.directory))
    assert os.listdir(sbin) == [], "there is no other installation"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    building.run(postrm, DPKG_ROOT=str(host.directory))
    links = {name: (sbin / name).readlink() for name in HELPERS}
    assert links == dict.fromkeys(HELPERS, Path("/usr/local/lib/virtfs/bin/mount.virtfs"))


@pytest.mark.parametrize("target", ["install", "uninstall"])
def test_files_of_a_package_are_left_to_dpkg(host: Host, target: str) -> None:
    host.package()
    database = host.directory / "dpkg"
    (database / "info").mkdir(parents=True)
    status = "Package: virtfs\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nMaintainer: m\n"
    (database / "status").write_text(f"{status}Description: d\n")
    (database / "info/format").write_text("1\n")
    (database / "info/virtfs.list").write_text(f"{host.program('usr')}\n")
    done = host.make(target, "usr/", DPKG_ADMINDIR=str(database))
    advice = "has the package virtfs: choose another PREFIX, or type apt-get remove virtfs"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"virtfs: {host.directory}/usr {advice}\n")
    assert host.mounts_with() == {host.program("usr")}


@pytest.mark.parametrize("name", ["a b", "50%", "a'b", 'a"b', "a&b", "a|b", "a$b", "a\\b", "größe"])
def test_a_prefix_that_a_unit_cannot_name_is_refused(host: Host, name: str) -> None:
    done = host.make("install", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f'virtfs: PREFIX="{host.directory}/{name}" may only have ASCII letters')
    assert os.listdir(host.directory) == ["sbin"]


def test_without_root_pip_is_the_way() -> None:
    """Only root may write where mount(8) looks, even if PREFIX is the user's."""
    check = [*as_user(), "env", "PREFIX=/mnt/home/opt", "/mnt/checkout/tools/install", "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert "where mount(8) looks for mount.virtfs: type sudo before make," in said[0]
    assert said[1] == "virtfs: or, for the other commands without root: pip install /mnt/checkout"


def test_make_passes_any_prefix_on(tmp_path: Path) -> None:
    """The shell that make starts does not see the quotes in it."""
    done = subprocess.run(
        ["make", "uninstall", f'PREFIX={tmp_path}/it\'s "here"'], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[0] == f'virtfs: nothing is installed in {tmp_path}/it\'s "here"'


def test_destdir_may_have_blanks_and_be_relative(host: Host) -> None:
    root = host.directory / "a [b] c"
    done = host.make("install", DESTDIR=root.name)
    assert (done.returncode, done.stderr) == (0, "")
    home = host.program("local").parents[1]
    packed = Path(f"{root}{home}")
    assert (packed / "installed").is_file()
    for name in ("bin/virtfs", "bin/mount.virtfs", "pyvenv.cfg"):
        text = (packed / name).read_text()
        assert str(root) not in text, name
        assert "pyvenv" in name or f"{home}/bin/python" in text, name


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python whose pip fails."""
    path = tmp_path / "python"
    path.write_text(_PYTHON)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("does", "told"), [(_FAILS, _ADVICE), (_CTRL_C, "virtfs: interrupted\n")])
def test_the_earlier_installation_stays_if_pip_fails(host: Host, python: Path, does: str, told: str) -> None:
    host.must("install")
    before = sorted((host.directory / "local").rglob("*"))
    done = host.make("install", PYTHON=str(python), PIP_DOES=does, REAL=sys.executable)
    assert done.returncode == (1 if does == _FAILS else 130)
    assert told in done.stderr
    assert (_ADVICE in done.stderr) == (does == _FAILS)
    assert sorted((host.directory / "local").rglob("*")) == before


@pytest.mark.parametrize(("does", "told"), [(_FAILS, _ADVICE), (_CTRL_C, "virtfs: interrupted\n")])
def test_the_first_make_without_a_network_says_what_to_do(tmp_path: Path, python: Path, does: str, told: str) -> None:
    """tools/setup fills .venv, before any other step of the target."""
    source = building.sources(tmp_path)
    done = subprocess.run(
        [source / "tools/setup", "run"],
        env=os.environ | {"PYTHON": str(python), "PIP_DOES": does, "REAL": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == (1 if does == _FAILS else 130)
    assert told in done.stderr
    assert (_ADVICE in done.stderr) == (does == _FAILS)


@pytest.mark.parametrize(
    ("route", "chosen", "retries"),
    [
        ("", "", "0"),
        ("", "3", "3"),
        ("route add default", "", "as pip likes"),
        ("-6 route add default", "", "as pip likes"),
    ],
)
def test_pip_does_not_retry_where_no_route_leads_anywhere(route: str, chosen: str, retries: str) -> None:
    """The message that names the remedy comes at once, not after a minute of retries."""
    prepare = f"ip link set lo up; ip {route} dev lo; " if route else ""
    asks = f". {PROJECT}/tools/pip.sh; fetching sh -c 'echo ${{PIP_RETRIES:-as pip likes}}'"
    done = subprocess.run(
        ["unshare", "--net", "--", "bash", "-euc", prepare + asks],
        env=os.environ | {"PIP_RETRIES": chosen},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{retries}\n"
