"""An ordinary user made for a test.

Lines of his own in /etc/passwd and the files beside it, bound over the system's in a mount namespace that goes with
him: nothing of him stays behind, and several tests may make him at a time. There he may also open the devices, and
reach this checkout and its Python wherever they lie.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]

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
    """What to put before a command to run it as that user.

    ids: his line in /etc/subuid and /etc/subgid. before: what root does first there, a shell script.
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
MANY_IDS = as_user("tourist:1000000:65536")
HIS_VIRTFS = [_python(), "-m", "virtfs"]
