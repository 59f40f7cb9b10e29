"""`virtfs`: the command line."""

import argparse
import sys
from collections.abc import Sequence

import virtfs
from virtfs.cli import helper
from virtfs.cli.mount import mount
from virtfs.cli.shell import shell
from virtfs.cli.signals import accept_any_caller
from virtfs.cli.umount import umount
from virtfs.core.errors import VirtError

_MOUNT = """\
Mounts virtfs at DIR, taps in this network namespace, and returns when the mount answers.

  virtfs mount /mnt/virt
  echo create 3 up >/mnt/virt/ctl

options, after -o, separated by commas:
  max_virts=N      interfaces at a time (4096)
  max_queue=N      the longest `queue`, frames (65536)
  max_backlog=N    the longest `backlog`, frames (65536)
  max_history=SIZE the longest `history`, bytes, or with K, M, G (64M)
  capture=SIZE     what waits for one reader of a pcap at most (8M)
  state=FILE       kept as reading ctl gives it, and made again from at the next mount
  log=FILE         where the log goes; else syslog, or stderr with -f
  debug            log everything
  ro               nothing can be opened for writing
  allow_other      let everybody in: as root always, else if /etc/fuse.conf has user_allow_other
  fsname=NAME      the mount's name in the table of mounts (virtfs)
  remount          change ro, rw, noexec, exec, noatime, atime, sync, async of a mount
  what fstab(5) has for others (defaults, noauto, nofail, _netdev, user, x-…) is passed over
"""
_UMOUNT = """\
Ends the virtfs at DIR, also while files are open: waiting readers get ENXIO. Returns when the taps are gone.

  virtfs umount /mnt/virt
"""
_SHELL = """\
Runs CMD, or $SHELL, as root of user, network, mount and pid namespaces of its own, in a virtfs
mounted there, which $VIRTFS names; exits with its status. No root needed (root himself gets no
user namespace). Everything in the namespaces ends with CMD.

  virtfs shell sh -c 'echo create 3 up >ctl; cat ifconfig'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 it failed, 2 it was not understood."""
    accept_any_caller()
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) == 4 and words[2] == "-o" and words[0] not in ("mount", "umount", "shell"):
        return helper.main(words)  # mount.fuse3(8), for the type fuse.virtfs
    given = _parser().parse_args(words)
    try:
        match given.verb:
            case "mount":
                return mount(given.directory, ",".join(given.options), given.foreground)
            case "umount":
                umount(given.directory)
                return 0
            case _:
                command: list[str] = given.command
                return shell(command[1:] if command[:1] == ["--"] else command)
    except VirtError as e:
        print(f"virtfs: {e.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="virtfs",
        formatter_class=raw,
        description="Ethernet interfaces as files: virt(4) and /dev/tapN for Linux, as a file system.",
        epilog="  virtfs mount /mnt/virt; echo create 3 up >/mnt/virt/ctl; xxd /mnt/virt/tap3",
    )
    parser.add_argument("--version", action="version", version=f"virtfs {virtfs.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    one = verbs.add_parser("mount", help="mount virtfs at a directory", description=_MOUNT, formatter_class=raw)
    one.add_argument("-f", dest="foreground", action="store_true", help="stay in the foreground")
    one.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="see above")
    one.add_argument("directory", metavar="DIR")

    one = verbs.add_parser("umount", help="end the virtfs at a directory", description=_UMOUNT, formatter_class=raw)
    one.add_argument("directory", metavar="DIR")

    one = verbs.add_parser("shell", help="a shell with a virtfs of its own", description=_SHELL, formatter_class=raw)
    one.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER)
    return parser
