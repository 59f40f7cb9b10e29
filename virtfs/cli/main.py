"""The command `virtfs`.

Each subcommand is imported only when it is needed. Otherwise importing the modules of `virtfs mount` would delay
`virtfs shell` by 0.15 s.
"""

import argparse
import errno
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import virtfs
from virtfs.cli.signals import accept_any_caller, interruptible
from virtfs.cli.surroundings import complain, sentence_of, settle
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted

_FIRST = """\
The first frame of the host, an ARP request, in the private virtfs of `virtfs shell`:

  echo create 3 up inet 10.0.3.1/24 backlog 1 >ctl
  ping -c1 -W1 10.0.3.2 >/dev/null &
  dd if=virt3/frame bs=2048 count=1 status=none | xxd
"""
_MOUNT = """\
Mount virtfs at DIR, with taps in this network namespace. Returns when the mount is ready.

  virtfs mount /mnt/virt
  echo create 3 up >/mnt/virt/ctl

options, after -o, separated by commas:
  max_virts=N      maximum number of interfaces (4096)
  max_queue=N      maximum of `queue`, in frames (65536)
  max_backlog=N    maximum of `backlog`, in frames (65536)
  max_history=SIZE maximum of `history`, in bytes, or with K, M, G (64M)
  capture=SIZE     maximum amount of data queued for one reader of a pcap file (8M)
  max_memory=SIZE  maximum amount of memory that all users can make the server hold (192M; the least is 1M)
  max_user_memory=SIZE
                   maximum amount for each user except root (64M; the least is 512K)
  state=FILE       save the interfaces and bridges to FILE, and restore them from it at mount
  log=FILE         log to FILE (default: journal or syslog, or stderr with -f)
  debug            log every request and its result
  ro               mount read-only
  allow_other      admit other users: always set for root, else needs user_allow_other in /etc/fuse.conf
  fsname=NAME      the source shown in the mount table (virtfs)
  remount          change ro, rw, noexec, exec, noatime, atime, sync, async of an existing mount
  Options of fstab(5) for other programs (defaults, noauto, nofail, _netdev, user, x-…) are ignored.
"""
_UMOUNT = """\
Unmount the virtfs at DIR and end its server, even while files are open: waiting readers get ENXIO. Returns when the
taps are gone. If the state file lacks changes, for example because the disk is full, nothing is unmounted and the
exit status is 1.

  virtfs umount /mnt/virt
"""
_SHELL = """\
Run CMD, or $SHELL, as root in new user, network, mount and pid namespaces with a virtfs of its
own, and exit with the status of CMD. $VIRTFS is the mount point, and so is the working directory.
After --, CMD keeps the working directory of the caller, as in `virtfs shell -- pytest`.
Does not need root; for root, no user namespace is created. When CMD exits, all processes in the
namespaces end. With --net, the namespaces reach what the caller reaches, through passt(1).
With --join, for a second window, CMD runs in the namespaces of your virtfs shell that already runs,
and ends with it. If several run, choose one with -d and its $VIRTFS.

  virtfs shell sh -c 'echo create 3 up >ctl; cat ifconfig'
  virtfs shell --net -- curl https://example.org
  virtfs shell --join virtfs top
"""
_LS = """\
List the mounts that you can see, with their interfaces, bridges and cables. RX/S and TX/S are frames
a second, from the host and to it. DROPPED is the number of frames dropped so far, also because no
program reads the interface, and LOST that of frames lost by the impairment of a cable. Why a cable
has no connection, and which lines of the state file could not be replayed, follows.

  virtfs ls
  virtfs ls --svg lab.svg
  virtfs ls --json | jq '.mounts[].status.virts[].name'
"""
_TOP = """\
Show the interfaces of all mounts that you can see, live: frames and bits a second, drops, readers,
and a plot of the frames received and transmitted. Press h for the keys, q to quit.

  virtfs top
  virtfs top -d /mnt/virt -i 0.5
"""
_CTL = """\
Write LINE to the file ctl of a mount. If the line is refused, print the reason and exit with status 1.
The mount is DIR, or else $VIRTFS, the mount that contains the working directory, or the only mount.

  virtfs ctl create 3 up inet 10.0.3.1/24
  virtfs ctl virt3 mtu 1400
  virtfs ctl help
  virtfs ctl help cable

To run the lines of a file, use `cat FILE >DIR/ctl`.
"""
_EXTCAP = """\
Show the interfaces of all mounts in the lists of Wireshark and tshark, with capture filters.
Install it once, then choose an interface in Wireshark, or name it to tshark:

  virtfs extcap --install
  tshark -D
  tshark -i virtfs:/mnt/virt:virt3 -f 'icmp or arp'
"""

_EXEC = """\
Run CMD with the tap of an interface as descriptor 3, at the speed of the bare tap. N is a number or
virtN, or the path of the directory of the interface. Until CMD and all processes that it started
have ended, no other program can read the interface. Exits with the status of CMD.
The environment of CMD has the directory of the interface: $VIRTFS_FD3/address is its MAC address.

  virtfs exec 3 -- qemu-system-x86_64 -netdev tap,id=n,fd=3 -device virtio-net-pci,netdev=n
  virtfs exec 3 --tun -- ./program tap3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status: 0 for success, 1 for a failure.

    `virtfs shell` returns the status of its command. After Ctrl-C the status is 130. A usage error raises SystemExit
    with status 2.
    """
    if arguments is None:
        settle()
    accept_any_caller()
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["__complete"]:
        from virtfs.cli.completion import complete

        complete(_parser(), words[1:])
        return 0
    if len(words) == 4 and words[2] == "-o" and words[0] not in ("mount", "umount", "shell", "ls", "top", "ctl"):
        # mount.fuse3(8) calls virtfs like this for the type fuse.virtfs.
        from virtfs.cli import helper

        return helper.main(words)
    words, command = _split(words)
    parser = _parser()
    status = _without_command(parser, words)
    if status is not None:
        return status
    given = parser.parse_args(_with_line_apart(words))
    if given.verb == "exec" and given.interface is None:
        given.parser.error("name the interface before --, as in `virtfs exec 3 -- CMD`")
    if given.verb == "exec" and (given.stray or not command):
        given.parser.error("put the command after --, as in `virtfs exec 3 -- CMD`")
    if given.verb == "exec" and given.tun and given.fd is not None:
        given.parser.error("with --tun, CMD gets no descriptor: leave out --fd")
    if given.verb == "exec" and given.tun and given.vnet_hdr:
        given.parser.error("with --tun, CMD asks for a virtio_net_hdr by itself (IFF_VNET_HDR): leave out --vnet-hdr")
    if given.verb == "shell" and given.directory and not given.join:
        given.parser.error("-d chooses the shell for --join")
    try:
        interruptible()
        match given.verb:
            case "mount":
                from virtfs.cli.mount import mount

                return mount(given.directory, ",".join(given.options), given.foreground)
            case "umount":
                from virtfs.cli.umount import umount

                umount(given.directory, force=given.force)
                return 0
            case "ls":
                from virtfs.cli.ls import draw, ls

                if given.svg is None:
                    return ls(given.directory, given.json)
                draw(given.directory, given.svg)
                return 0
            case "top":
                from virtfs.cli.top import top

                top(given.directory, given.interval)
                return 0
            case "ctl":
                from virtfs.cli.ctl import ctl

                line = given.line  # some versions of Python keep the "--"
                ctl(given.directory, line[1:] if line[:1] == ["--"] else line)
                return 0
            case "extcap":
                return _extcap(given)
            case "exec":
                from virtfs.cli.execute import execute

                number = 3 if given.fd is None else given.fd
                return execute(given.interface, command, number=number, header=given.vnet_hdr, tun=given.tun)
            case _:
                # Some versions of Python keep the "--" in the command, others do not.
                apart = given.command[:1] == ["--"] or words[: len(words) - len(given.command)][-1:] == ["--"]
                command = given.command[1:] if given.command[:1] == ["--"] else given.command
                if given.join:
                    from virtfs.cli.shell_join import join

                    return join(given.directory, command, stay=apart)
                from virtfs.cli.shell import shell

                return shell(command, stay=apart, net=given.net)
    except OSError as e:
        sentence = e.strerror if isinstance(e, VirtError) else sentence_of(e)
        complain("virtfs", sentence)
        from virtfs.cli.notify import notify

        notify(f"STATUS={sentence}", f"ERRNO={e.errno or errno.EIO}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def _extcap(given: argparse.Namespace) -> int:
    if not (given.install or given.uninstall):
        from virtfs.cli.extcap import extcap

        extcap(given)
        return 0
    from virtfs.cli.extcap_install import install, uninstall

    change = install if given.install else uninstall
    change(given.everywhere)
    return 0


def _with_line_apart(words: Sequence[str]) -> list[str]:
    """Return a command line with "--" before the LINE of `virtfs ctl`. LINE may begin with a verb such as -strict."""
    words = list(words)
    if words[:1] != ["ctl"] or {"-h", "--help"} & set(words[1:2]):
        return words
    at = 3 if words[1:2] == ["-d"] else 1
    return words if words[at : at + 1] == ["--"] else [*words[:at], "--", *words[at:]]


def _split(words: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """Split the arguments of `virtfs exec` at "--" into those for virtfs and the command to run.

    The arguments of other subcommands are not split. argparse cannot do this, since options may follow N, and the
    command may have options of the same names.
    """
    if words[:1] == ["exec"] and "--" in words:
        at = words.index("--")
        return words[:at], list(words[at + 1 :])
    return words, []


def _add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the option -d and the argument DIR, which select a mount."""
    one_of = parser.add_mutually_exclusive_group()
    one_of.add_argument("-d", dest="directory", metavar="DIR", help="the same as DIR")
    shown = "the mount; without it, all mounts"
    one_of.add_argument("directory", metavar="DIR", nargs="?", default=argparse.SUPPRESS, help=shown)


def _interval(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not 0.1 <= float(text) <= 60:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a number of seconds from 0.1 to 60")
    return float(text)


class _Command(argparse.ArgumentParser):
    """The parser of a subcommand. It refuses unknown arguments itself, so that the error shows its own usage."""

    def parse_known_args(self, *arguments: Any, **named: Any) -> tuple[Any, list[str]]:
        given, unknown = super().parse_known_args(*arguments, **named)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return given, unknown


def _without_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> int | None:
    """Answer a command line that names no subcommand, and return the exit status. Return None for all others."""
    if not words:
        parser.print_help(sys.stderr)
        return 2
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    if words[0] == "help":
        _help(parser, commands, words[1:])
        return 0
    if not words[0].startswith("-") and words[0] not in commands:
        parser.error(f"unknown command {quoted(words[0])}: {_advice(words)}")
    return None


def _help(
    parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser], words: Sequence[str]
) -> None:
    """Print the help of a subcommand, or of virtfs itself if `words` names none."""
    from virtfs.core.verbs import FORMS, VERBS

    name = words[0] if words else "help"
    if name == "help" or name.startswith("-"):
        parser.print_help()
    elif name not in commands:
        of_ctl = name in {form.kind for form in FORMS} | {verb.name for verb in VERBS}
        where = f"`virtfs ctl help {name}` describes this word of ctl" if of_ctl else "`virtfs help` lists the commands"
        parser.error(f"unknown command {quoted(name)}: {where}")
    elif len(words) > 1:
        parser.error(f"help takes one command, not {quoted(' '.join(words))}")
    else:
        commands[name].print_help()


def _advice(words: Sequence[str]) -> str:
    """Return what to type instead of an unknown subcommand."""
    from virtfs.core.verbs import FORMS

    if any(form.kind == words[0] for form in FORMS) or re.fullmatch("(virt|bridge)[0-9]+", words[0]):
        return f"for this line of ctl, use `virtfs ctl {' '.join(words)}`"
    return "`virtfs help` lists the commands; `cat` reads the files of a mount"


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from virtfs.fuse import loops

        print(f"virtfs {virtfs.__version__}, {loops.name()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="virtfs",
        formatter_class=raw,
        description="Ethernet interfaces as files: virt(4) and /dev/tapN for Linux, as a file system.",
        epilog=_FIRST,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the version and which loop a server uses, and exit"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=_Command)

    one = verbs.add_parser("mount", help="mount virtfs at a directory", description=_MOUNT, formatter_class=raw)
    one.add_argument("-f", dest="foreground", action="store_true", help="stay in the foreground")
    one.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="see above")
    one.add_argument("directory", metavar="DIR")

    one = verbs.add_parser("umount", help="unmount and end a virtfs", description=_UMOUNT, formatter_class=raw)
    one.add_argument("--force", action="store_true", help="give up changes that the state file lacks")
    one.add_argument("directory", metavar="DIR")

    one = verbs.add_parser(
        "exec",
        help="run a program with the tap of an interface",
        usage="virtfs exec N [[--fd FD] [--vnet-hdr] | --tun] -- CMD ...",
        description=_EXEC,
        formatter_class=raw,
    )
    one.set_defaults(parser=one)
    one.add_argument("interface", metavar="N", nargs="?", help="number of the interface, or path of its directory")
    one.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    one.add_argument("--fd", type=int, help="number of the descriptor (3)")
    one.add_argument("--vnet-hdr", action="store_true", help="precede each frame with a struct virtio_net_hdr")
    one.add_argument("--tun", action="store_true", help="let CMD attach to the tap through /dev/net/tun")

    one = verbs.add_parser("shell", help="run a shell in a private virtfs", description=_SHELL, formatter_class=raw)
    one.set_defaults(parser=one)
    form = one.add_mutually_exclusive_group()
    form.add_argument("--net", action="store_true", help="connect it to the Internet through passt(1)")
    form.add_argument("--join", action="store_true", help="enter your virtfs shell that already runs")
    one.add_argument("-d", dest="directory", metavar="DIR", help="with --join: $VIRTFS of the shell to enter")
    one.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER)

    one = verbs.add_parser("ls", help="list mounts and interfaces", description=_LS, formatter_class=raw)
    _add_directory(one)
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object, see virtfs(1)")
    form.add_argument("--svg", metavar="FILE", help="draw the network of one mount with Graphviz; - is stdout")

    one = verbs.add_parser("top", help="show rates live", description=_TOP, formatter_class=raw)
    _add_directory(one)
    one.add_argument(
        "-i",
        dest="interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="time between samples, 0.1 to 60 (1)",
    )

    one = verbs.add_parser(
        "extcap",
        help="make Wireshark list the interfaces",
        usage="virtfs extcap --install | --uninstall [--global]",
        description=_EXTCAP,
        formatter_class=raw,
        allow_abbrev=False,
    )
    task = one.add_mutually_exclusive_group()
    task.add_argument("--install", action="store_true", help="make Wireshark call this command")
    task.add_argument("--uninstall", action="store_true", help="undo --install")
    one.add_argument("--global", dest="everywhere", action="store_true", help="for all users, not for this one alone")
    calls = one.add_argument_group("calls of Wireshark, see extcap(4)")
    calls.add_argument("--extcap-interfaces", action="store_true", help="list the interfaces")
    calls.add_argument("--extcap-dlts", action="store_true", help="list the link types of an interface")
    calls.add_argument("--extcap-config", action="store_true", help="list the options of an interface: none")
    calls.add_argument("--capture", action="store_true", help="capture on an interface")
    calls.add_argument("--extcap-interface", metavar="NAME", help="the interface, as --extcap-interfaces names it")
    calls.add_argument("--extcap-capture-filter", metavar="EXPRESSION", help="the filter; without --capture, check it")
    calls.add_argument("--fifo", metavar="FILE", help="where the capture goes")
    calls.add_argument("--extcap-version", metavar="VERSION", nargs="?", const="", help="the version of Wireshark")

    one = verbs.add_parser("ctl", help="write a line to ctl", description=_CTL, formatter_class=raw)
    one.add_argument("-d", dest="directory", metavar="DIR", help="the mount, or the directory of one interface")
    one.add_argument("line", metavar="LINE", nargs=argparse.REMAINDER, help="a line of ctl, or its words")

    # _without_command() answers it. It is here for the list of commands and for completion.
    one = verbs.add_parser("help", help="describe a command, as COMMAND --help does")
    one.add_argument("name", metavar="COMMAND", nargs="?")
    return parser
