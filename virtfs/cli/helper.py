"""mount.virtfs: how mount(8) calls for `mount -t virtfs virtfs DIR` and for a line of fstab(5).

virtfs  /mnt/virt  virtfs  noauto,max_virts=16  0 0
"""

import argparse
import sys
from collections.abc import Sequence

from virtfs.cli.mount import mount
from virtfs.cli.options import parse
from virtfs.core.errors import VirtError

FAILED = 32  # mount(8), "mount failure"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns mount(8)'s exit statuses: 0, 1 incorrect invocation, 32 failure."""
    parser = argparse.ArgumentParser(
        prog="mount.virtfs",
        description="Mounts virtfs, called by mount(8).",
        epilog="example: mount.virtfs virtfs /mnt/virt -o max_virts=16",
        exit_on_error=True,
    )
    parser.add_argument("source", metavar="SRC", help="any word, virtfs has no source")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass over unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="check, but do not mount")
    parser.add_argument("-n", dest="no_mtab", action="store_true", help="nothing: /etc/mtab is the kernel's")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what is done")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="fuse.virtfs or virtfs")
    given = parser.parse_args(arguments)
    try:
        options = parse(",".join(given.options), given.sloppy)
    except VirtError as e:
        print(f"mount.virtfs: {e.strerror}", file=sys.stderr)
        return 1
    if given.fake:
        return 0
    try:
        mount(given.directory, options, foreground=False)
    except VirtError as e:
        print(f"mount.virtfs: {e.strerror}", file=sys.stderr)
        return FAILED
    if given.verbose:
        print(f"mount.virtfs: {given.source} mounted on {given.directory}.")
    return 0
