"""mount.virtfs: the helper that mount(8) runs for `mount -t virtfs none DIR` and for a line of fstab(5) such as:

    none  /mnt/virt  virtfs  noauto,max_virts=16  0 0

For the type fuse.virtfs, mount.fuse3(8) runs `virtfs SRC DIR -o OPTIONS` instead.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from virtfs.cli.mount import mount
from virtfs.cli.options import parse
from virtfs.cli.remount import without_present
from virtfs.cli.surroundings import complain, sentence_of, settle
from virtfs.core.errors import VirtError
from virtfs.fuse.mounttable import mounted_at, resolve

# Exit statuses of mount(8): "incorrect invocation" and "mount failure".
MISUSED, FAILED = 1, 32


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have no usage line, because the user called mount(8) and not this program."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mount.virtfs and return an exit status of mount(8): 0, 1 (incorrect invocation) or 32 (failure)."""
    if arguments is None:
        settle()
    given = _parser().parse_args(arguments)
    options = ",".join(given.options + given.access)
    try:
        if given.namespace is not None:
            why = "-N is not supported: use nsenter --mount=NAMESPACE mount -t virtfs none DIR"
            return _refused(why, MISUSED)
        here = mounted_at(resolve(given.directory)) if "remount" in options.split(",") else None
        parse(without_present(here, options) if here else options, sloppy=given.sloppy, relative=False)
    except VirtError as e:
        return _refused(e.strerror, MISUSED)
    except OSError as e:
        return _refused(sentence_of(e), FAILED)
    if given.fake:
        return 0
    try:
        mount(given.directory, options, sloppy=given.sloppy, source=given.source, program="mount.virtfs")
    except VirtError as e:
        return _refused(e.strerror, FAILED)
    except OSError as e:
        return _refused(sentence_of(e), FAILED)
    if given.verbose:
        print(f"mount.virtfs: {given.source} mounted on {given.directory}.")
    return 0


def _refused(why: str, status: int) -> int:
    complain("mount.virtfs", why)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mount.virtfs",
        description="Mount virtfs; called by mount(8).",
        epilog="example: mount.virtfs none /mnt/virt -o max_virts=16",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SRC", help="the source shown in the mount table: any word")
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    parser.add_argument("-f", dest="fake", action="store_true", help="check the options, but do not mount")
    parser.add_argument("-n", "-i", dest="nothing", action="store_true", help="no effect")
    parser.add_argument("-v", dest="verbose", action="store_true", help="print a line for each mount")
    parser.add_argument("-r", dest="access", action="append_const", const="ro", default=[], help="same as -o ro")
    parser.add_argument("-w", dest="access", action="append_const", const="rw", default=[], help="same as -o rw")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("-t", dest="type", metavar="TYPE", help="fuse.virtfs or virtfs")
    parser.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="not supported")
    return parser
