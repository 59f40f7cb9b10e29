"""virtfs.mount(): starts a server as a program. The example in its docstring tests the temporary directory."""

import subprocess
import sys

import pytest
from harness.places import DIR, Place, finished
from harness.serving import ENVIRONMENT, Mount

import virtfs
from virtfs.cli import options
from virtfs.client.started import Options
from virtfs.testing.lab import Lab
from virtfs.testing.netns import Netns

from .conftest import seen

# Relative paths are those of this program; its working directory has no module of virtfs.
_PROGRAM = """
import os, sys, virtfs
os.chdir("/mnt")
with virtfs.mount("virt", max_virts=2, state="lab.state", ro=None, debug=False) as net:
    print(net, net.create(3, up=True), net.status()["options"])
    try:
        virtfs.mount("virt")
    except OSError as error:
        print(error)
net.close()
print(os.listdir("virt"), open("lab.state").read().split()[-1])
try:
    virtfs.mount(wobble=3)
except OSError as error:
    print(error.errno, error.strerror)
try:
    virtfs.mount("nothing")
except FileNotFoundError as error:
    print(error)
print(os.listdir("."), {name.partition(".")[0] for name in sys.modules} & {"trio", "pyfuse3", "pyroute2"})
"""


def test_a_mount_of_its_own(elsewhere: Place) -> None:
    environment = {**ENVIRONMENT, "TMPDIR": "/mnt"}
    program = elsewhere.start(
        sys.executable, "-c", _PROGRAM, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, complaint = finished(program, 40)
    assert complaint == ""
    assert output.splitlines() == [
        f"Started({DIR!r}) virt3 max_virts=2,state=/mnt/lab.state",
        f"[Errno 16] \"{DIR}\" is busy: virtfs is already mounted there: '{DIR}'",
        "[] up",
        '22 unknown mount option "wobble=3": "virtfs mount --help" lists all',
        "[Errno 2] \"/mnt/nothing\": No such file or directory: '/mnt/nothing'",
        "['lab.state', 'virt'] set()",
    ]
    assert elsewhere.mounts() == []
    assert elsewhere.links() == ["lo"]


_UNSAVED = """
import os, shutil, virtfs
os.chdir("/mnt")
os.mkdir("lab")
net = virtfs.mount("virt", state="lab/state")
shutil.rmtree("lab")
net.create(3)
try:
    net.close()
except OSError as error:
    print(error.errno, "not saved" in error.strerror, list(net))
os.mkdir("lab")
net.create(4)
net.close()
print([line.split()[1] for line in open("lab/state")], os.listdir("virt"))
"""


def test_a_mount_with_changes_that_cannot_be_saved_is_not_closed(elsewhere: Place) -> None:
    program = elsewhere.start(
        sys.executable, "-c", _UNSAVED, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, complaint = finished(program, 40)
    assert complaint == ""
    assert output.splitlines() == [f"16 True [Virt('{DIR}/virt3')]", "['3', '4'] []"]


_LONG = """
import os, virtfs
os.makedirs(os.environ["TMPDIR"])
with virtfs.mount() as net:
    print(str(net.path).startswith(os.environ["TMPDIR"]), net.create(3))
print(os.listdir(os.environ["TMPDIR"]))
try:
    virtfs.mount(wobble=3)
except OSError as error:
    print(error.errno)
"""


def test_a_directory_for_temporary_files_with_a_long_name(elsewhere: Place) -> None:
    """The path of a Unix socket has at most 107 bytes."""
    environment = {**ENVIRONMENT, "TMPDIR": f"/mnt/{'x' * 100}"}
    program = elsewhere.start(
        sys.executable, "-c", _LONG, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert finished(program, 40) == ("True virt3\n[]\n22\n", "")


def test_the_types_know_all_options() -> None:
    """async is a keyword of Python, so that it can only be given as **{"async": True}, which is the default."""
    assert {*Options.__annotations__} == {*options.MountOptions().own(), *options.FLAGS, "fsname"} - {"async"}


def test_a_type_checker_sees_wrong_keywords(mount: Mount) -> None:
    """mypy reports an ignored error that does not exist (warn_unused_ignores), so it checks these lines, too."""
    with pytest.raises(OSError, match='"max_virtss=16"'):
        virtfs.mount(max_virtss=16)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a host is a namespace of its own"):
        Lab(seen(mount), Netns).host("a", netns=1)  # type: ignore[call-arg]
