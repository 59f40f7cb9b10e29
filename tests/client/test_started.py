"""virtfs.mount(): a server of one's own, as a program."""

import subprocess
import sys

from harness.places import DIR, Place, finished
from harness.serving import ENVIRONMENT

# `virt` is a path relative to the working directory, where the program finds no module of virtfs.
_PROGRAM = """
import os, sys, virtfs
os.chdir("/mnt")
with virtfs.mount(max_virts=2, state="lab.state") as net:
    net.create(3, up=True)
    print(net.status()["options"])
print(os.listdir("."), open("lab.state").read().split()[-1])
net.close()
net = virtfs.mount("virt", state="lab.state", ro=None, debug=False)
print(net, [str(v) for v in net])
try:
    virtfs.mount("virt")
except OSError as error:
    print(error)
net.close()
for options in ({"wobble": 3}, {"max_virts": "x"}, {"state": "/"}):
    try:
        virtfs.mount(**options)
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
        "max_virts=2,state=/mnt/lab.state",
        "['lab.state', 'virt'] up",
        f"Started({DIR!r}) ['virt3']",
        f"[Errno 16] \"{DIR}\" is busy: virtfs is already mounted there: '{DIR}'",
        '22 unknown mount option "wobble=3"',
        '22 mount option "max_virts=x" needs a number, 1 to 2147483647',
        '21 state file "/": Is a directory',
        "[Errno 2] \"/mnt/nothing\": No such file or directory: '/mnt/nothing'",
        "['lab.state', 'virt'] set()",
    ]
    assert elsewhere.mounts() == []
    assert elsewhere.links() == ["lo"]


def test_a_user_without_the_right(elsewhere: Place) -> None:
    program = elsewhere.start(
        sys.executable, "-c", "import virtfs; virtfs.mount()",
        uid=65534, cwd="/", env={**ENVIRONMENT, "TMPDIR": "/tmp"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, complaint = finished(program, 20)
    assert "PermissionError: [Errno 1] taps need CAP_NET_ADMIN" in complaint
