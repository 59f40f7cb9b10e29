"""`virtfs shell` of a student beside a mount of root: the shell keeps the mounts that it began with."""

import re

from harness.running import run
from harness.users import HIS_VIRTFS, as_user

from .test_shell_join import ALONE

_VIRTFS = " ".join(HIS_VIRTFS)
# Root runs the lines `outside` when the student asks for it. A line in a FIFO is a message.
_ROOT = f"""
virtfs() {{ env PYTHONPATH=/mnt/checkout {_VIRTFS} "$@"; }}
mkdir /mnt/aclass
mkfifo -m 666 /mnt/home/go /mnt/home/gone
%s
{{ read -r go; %s; echo >/mnt/home/gone; %s; }} </mnt/home/go >/dev/null 2>&1 &
"""
_ASK = "echo >/mnt/home/go; read -r gone </mnt/home/gone"


def student(text: str, before: str = "", outside: str = ":", after: str = ":") -> list[str]:
    """Run a script in the student's shell, with the function virtfs. Return the lines that it prints.

    before, outside, after: scripts of root, before the shell begins, when the student asks for it, and then.
    """
    script = f'virtfs() {{ {_VIRTFS} "$@"; }}; exec 2>&1\n{text}'
    user = as_user(before=_ROOT % (before, outside, after))
    return run([*ALONE, *user, *HIS_VIRTFS, "shell", "bash", "-uc", script], 60).stdout.splitlines()


def test_the_mount_for_the_class_has_ended() -> None:
    """The student's own mount works. The message does not advise to mount at $VIRTFS, which would fail."""
    why = "the server has ended: a new virtfs shell no longer shows a mount from outside; mount your own again"
    locked = ": it was mounted outside of this user namespace, before `virtfs shell` began: unmount it there"
    *listed, status, one, its_status, umount, mount, missing = student(
        f"""
        virtfs ls | grep -v '^$'
        {_ASK}
        virtfs ls | grep -v '^$'; virtfs ls >/dev/null; echo $?
        virtfs ls -d /mnt/aclass; echo $?
        virtfs umount /mnt/aclass
        virtfs mount /mnt/aclass 2>&1 | tail -n1
        virtfs exec 9 -- true
        """,
        before="virtfs mount /mnt/aclass",
        outside="virtfs umount /mnt/aclass",
    )
    own, its, own_again, ended = listed
    assert own == own_again
    assert re.fullmatch(r"/mnt/aclass  0 interfaces, 0 bridges, 0 cables  netns net:\[[0-9]+\]", its)
    assert "/virtfs-" in own
    assert ended == f'/mnt/aclass  "/mnt/aclass/status.json": Transport endpoint is not connected: {why}'
    assert (status, one, its_status) == ("0", ended, "1")
    for line in (umount, mount):
        assert line.startswith('virtfs: cannot unmount "/mnt/aclass": ')
        assert line.endswith(locked)
    assert missing == f'virtfs: exec: "/mnt/aclass": Transport endpoint is not connected: {why}', "it may have had it"


def test_the_own_mount_of_the_shell_has_ended() -> None:
    why = 'the server has ended: type `virtfs mount "$VIRTFS"; cd "$VIRTFS"`'
    listed, status = student(
        f"""
        cd /; kill -9 $(pgrep -P1 | head -1)
        virtfs ls >/mnt/home/listed; status=$?
        cat /mnt/home/listed; echo $status
        {_ASK}
        """
    )
    assert listed.endswith(f": Transport endpoint is not connected: {why}")
    assert status == "1"


def test_a_mount_made_later_is_missing_in_the_shell() -> None:
    why = "a virtfs shell does not see mounts that were made outside after it began: leave it and start another"
    assert student(
        f"{_ASK}; virtfs ctl -d /mnt/aclass create 3; virtfs ls /mnt/aclass",
        outside="virtfs mount /mnt/aclass",
        after="virtfs umount /mnt/aclass",
    ) == [
        f'virtfs: there is no virtfs mounted at "/mnt/aclass": {why}',
        f'virtfs: "/mnt/aclass" is not a virtfs mount: {why}',
    ]
