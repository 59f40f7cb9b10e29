"""`virtfs extcap`: list the interfaces of all mounts in Wireshark and tshark (extcap(4)).

extcap_install.py writes a program into Wireshark's extcap folder. Wireshark calls it with these options:

    --extcap-interfaces                                          lists the interfaces
    --extcap-dlts, --extcap-config --extcap-interface NAME       the link types and the options of an interface
    --extcap-capture-filter EXPRESSION --extcap-interface NAME   checks an expression
    --capture --fifo FIFO --extcap-interface NAME                captures until SIGTERM, or until the FIFO is closed

If a capture writes text to standard error, Wireshark shows the text in a dialog.
"""

import errno
import os
import re
import signal
import stat
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from json import loads
from typing import NoReturn
from zlib import crc32

import virtfs
from virtfs.cli.columns import host_of, state_of
from virtfs.cli.mounts import ask, ask_while_read, explained, read, say, visible
from virtfs.cli.signals import unless_ignored
from virtfs.core.errors import VirtError
from virtfs.core.pcapng_sieve import Sieve
from virtfs.core.quoting import one_line
from virtfs.host.bpf import Matcher, compile_filter
from virtfs.host.processes import end_with

VERSION = f"extcap {{version={virtfs.__version__}}}{{display=virtfs}}\n"
DLT = "dlt {number=1}{name=EN10MB}{display=Ethernet}\n"  # DLT_EN10MB, pcap-linktype(7)

_PREFIX = "virtfs:"
_ONE = re.compile(r"(.+?)(?::(virt[0-9]+))?")
_PLAIN = frozenset(b"/-._+@~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# Wireshark puts the interface name into names of FIFOs, and the description into names of files (at most 255 bytes).
_NAME_MAX = 160
_SHOWN_MAX = 160  # bytes
_PATH_MAX = 40  # bytes of a path in the description
_OPENING = 30  # seconds to wait for a reader of the FIFO
_READ = 1 << 20  # bytes
# Errors of open(2) and read(2) after the mount has ended.
_GONE = (errno.ENXIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)


def extcap(given: Namespace) -> None:
    """Answer a call from Wireshark. given: the parsed command line.

    VirtError: the call is incomplete, or the capture fails or ends.
    """
    if given.extcap_interfaces:
        say("".join([VERSION, *_interfaces()]))
    elif given.extcap_dlts:
        say(DLT)
    elif given.capture:
        if given.fifo is None or given.extcap_interface is None:
            raise VirtError(errno.EINVAL, "extcap: --capture needs --extcap-interface and --fifo")
        _capture(given.extcap_interface, given.extcap_capture_filter, given.fifo)
    elif given.extcap_config:
        pass  # there are no options
    elif given.extcap_capture_filter is not None:
        _check(given.extcap_capture_filter)
    elif given.extcap_version is not None:
        say(VERSION)
    else:
        raise VirtError(errno.EINVAL, "extcap is called by Wireshark: to set it up, run `virtfs extcap --install` once")


def _interfaces() -> Iterator[str]:
    """Yield the lines that list the interfaces of all mounts. Mounts that do not answer are left out."""
    directories = list(_directories().values())
    for directory, answer in zip(directories, ask(directories, partial(read, name="status.json")), strict=True):
        if answer.error is None:
            yield _line(_name(directory), f"all interfaces of {directory}")
            for virt in loads(answer.data)["virts"]:
                tap = virt["tap"]["name"]
                rest = host_of(virt).removeprefix(tap).strip()
                shown = f"{virt['name']}: {tap} {state_of(virt)} {rest}".rstrip()
                yield _line(f"{_name(directory)}:{virt['name']}", shown, f", {directory}/{virt['name']}")


def _line(name: str, shown: str, path: str = "") -> str:
    """Return the line that lists an interface. Braces are replaced, since one would end the text (extcap_parser.c).

    path: the end of the text, which is kept if the text must be cut. Wireshark names the file of a capture after what
    follows the last slash of the text, which may otherwise be that of an address.
    """
    end = path if len(path.encode(errors="replace")) <= _PATH_MAX else f", …/{path.rpartition('/')[2]}"
    room = _SHOWN_MAX - len(_printable(end).encode())
    text = _printable(shown).encode()[:room].decode(errors="ignore") + _printable(end)
    return f"interface {{value={name}}}{{display={text}}}\n"


def _printable(text: str) -> str:
    return one_line(text).replace("{", "(").replace("}", ")")


def _name(directory: str) -> str:
    """Return Wireshark's name for a mount. It depends only on the directory, so a later mount there gets the same name.

    Wireshark's preferences separate names with commas, so most characters are escaped, as in a URL.
    """
    data = os.fsencode(directory)
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)
    if len(name) > _NAME_MAX:
        name = f"{crc32(data):08x}...{name[-_NAME_MAX:]}"
    return _PREFIX + name


def _directories() -> dict[str, str]:
    """Return the directory of each mount, keyed by Wireshark's name for the mount."""
    return {_name(mount.directory): mount.directory for mount in visible()}


def _check(expression: str) -> None:
    """Check a filter. Wireshark expects any error on standard output, and exit status 0 (extcap.c cb_verify_filter)."""
    try:
        compile_filter(expression)
    except VirtError as error:
        say(f"{error.strerror}\n")


def _capture(name: str, expression: str | None, fifo: str) -> None:
    """Copy a capture to a FIFO until the FIFO is closed or a signal arrives. name: as listed by _interfaces()."""
    for number in unless_ignored(signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    # Open the FIFO first: if this process ended before dumpcap had opened it, Wireshark would report a missing device.
    out = _opened(fifo)
    program = compile_filter(expression or "")
    match = _ONE.fullmatch(name)
    directory, virt = match.groups() if match else (name, None)
    found = _directories().get(directory)
    if found is None:
        raise VirtError(errno.ENOENT, f'there is no mount "{directory.removeprefix(_PREFIX)}": refresh the list')
    sieve = Sieve(Matcher(program)) if program else None
    ask_while_read(found, partial(_copy, virt=virt, sieve=sieve, out=out, parent=os.getpid()), out)


def _end(number: int, frame: object) -> NoReturn:
    """End this process at once. Python would report an exception that is raised while it shuts down."""
    os._exit(0)


def _opened(fifo: str) -> int:
    """Open a FIFO for writing, and return the descriptor. VirtError: EINVAL, not a FIFO; ETIMEDOUT, it has no reader.

    The open does not block: a blocking open(2) waits for a reader (fifo(7)), for ever if Wireshark has been killed.
    """
    if not stat.S_ISFIFO(os.stat(fifo).st_mode):
        raise VirtError(errno.EINVAL, f'extcap: "{fifo}" is not a FIFO')
    end = time.monotonic() + _OPENING
    while True:
        try:
            out = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                what = f'extcap: no program has opened the FIFO "{fifo}" for reading'
                raise VirtError(errno.ETIMEDOUT, what) from None
            time.sleep(0.02)
        else:
            os.set_blocking(out, True)
            return out


def _copy(directory: str, virt: str | None, sieve: Sieve | None, out: int, parent: int) -> bytes:
    """Copy a capture to the FIFO. Return b"" once the FIFO has no reader. Runs in a child of the process `parent`.

    VirtError: the capture fails or ends.
    """
    end_with(parent)
    try:
        capture = _begun(directory, virt)
        while data := os.read(capture, _READ):
            rest = memoryview(sieve.feed(data) if sieve else data)
            while rest:
                rest = rest[os.write(out, rest) :]
    except BrokenPipeError:
        return b""
    except OSError as error:
        raise VirtError(error.errno or errno.EIO, _sentence(error, directory, virt)) from None
    raise VirtError(errno.ENXIO, f"{_shown(directory, virt)} has been destroyed, or the mount has ended")


def _begun(directory: str, virt: str | None) -> int:
    """Open a capture, and return its descriptor."""
    began = time.time_ns()
    try:
        return os.open(os.path.join(directory, virt or "", "pcap"), os.O_RDONLY)
    except OSError as error:
        raise explained(error, directory, began) from None


def _shown(directory: str, virt: str | None) -> str:
    return f'{virt} of "{directory}"' if virt else f'"{directory}"'


def _sentence(error: OSError, directory: str, virt: str | None) -> str:
    """Return the error message for a capture that has failed."""
    what = _shown(directory, virt)
    if error.errno == errno.EACCES:
        remedy = f'root can give you {virt} with the command "{virt} owner NAME"' if virt else "only root may do so"
        return f"no permission to capture on {what}: {remedy}"
    if error.errno == errno.ENOENT:
        return f"{what} no longer exists: refresh the list of interfaces"
    if error.errno in _GONE:
        return f'the mount at "{directory}" has ended'
    return f"cannot capture on {what}: {error.strerror}"
