"""Runs commands as an ordinary user that exists for one test.

The user exists in copies of /etc/passwd, /etc/group, /etc/subuid and /etc/subgid, bind-mounted over the system's files
in a private mount namespace: nothing is left behind, and tests can run in parallel. The namespace also has device nodes
with mode 0666 and this checkout at a path that every user can reach.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

_HOME = "/mnt/home"
_CHECKOUT = "/mnt/checkout"
_MAKE = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/home /mnt/checkout
chown 54321:54321 /mnt/home
mount --rbind "$1" /mnt/checkout
cp /etc/passwd /etc/group /mnt
echo tourist:x:54321:54321::/mnt/home:/bin/sh >>/mnt/passwd
echo tourist:x:54321: >>/mnt/group
printf "%b\\n" "$2" | tee /mnt/subuid >/mnt/subgid
mknod -m 666 /mnt/fuse c 10 229
mknod -m 666 /mnt/tun c 10 200
touch /etc/subuid /etc/subgid
for file in passwd group subuid subgid; do mount --bind /mnt/$file /etc/$file; done
mount --bind /mnt/fuse /dev/fuse
mount --bind /mnt/tun /dev/net/tun
eval "$3"
cd /mnt/home
shift 3
exec setpriv --reuid=54321 --regid=54321 --init-groups -- "$@"
"""


def as_user(ids: str = "", before: str = "") -> list[str]:
    """Return the command prefix that runs a command as the test's user.

    ids: contents of /etc/subuid and /etc/subgid. before: a shell script that root runs first in the namespace.
    """
    environment = [
        "env",
        f"HOME={_HOME}",
        f"PYTHONPATH={_CHECKOUT}",
        f"TMPDIR={_HOME}",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ]
    return ["unshare", "--mount", "--", "sh", "-euc", _MAKE, "sh", str(_ROOT), ids, before, *environment]


def _python() -> str:
    python = Path(sys.executable)
    return str(Path(_CHECKOUT, python.relative_to(_ROOT))) if python.is_relative_to(_ROOT) else str(python)


ONE_ID = as_user()
RANGE = "tourist:1000000:65536"  # in /etc/subuid
MANY_IDS = as_user(RANGE)
HIS_VIRTFS = [_python(), "-m", "virtfs"]
