"""tcpdump's filter language, compiled by libpcap (pcap_compile(3PCAP)) to the kernel's classic BPF.

An expression comes from a user, and the compiler runs in the daemon, so it is bounded by what was measured
(libpcap 1.10.3): its time grows with the square of the instructions it makes of the alternatives, of which
4 KiB can hold 1400, for 34 s, and its optimizer's grows faster still. With the bounds below it stays under 2 s.

libpcap asks the resolver for what it takes for a host's name, 10 s and more for each when the network is slow.
That is not granted: the compiler runs in a thread that can open no socket. Names of /etc/hosts, /etc/services,
/etc/protocols and /etc/ethers are still known; any other is unknown at once.
"""

import ctypes
import errno
import os
import platform
import re
import socket
import struct
import threading
from dataclasses import dataclass
from functools import cache

from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.host.descriptors import one_left
from virtfs.host.threads import call_apart

EXPRESSION_MAX = 4096  # bytes
TERMS_MAX = 200
UNOPTIMIZED_MAX = 8192
INSTRUCTIONS_MAX = 4096 - 3  # BPF_MAXINSNS, linux/bpf_common.h; three for `towards_wire_only`

_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")  # Debian's name, the others', musl's without a number
_DLT_EN10MB = 1
_SNAPLEN = 262144  # tcpdump's; what a program that accepts returns, and no frame is longer
_NETMASK_UNKNOWN = 0xFFFFFFFF
_OUTCOME_ERROR = -1

_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter, linux/filter.h
_FPROG = struct.Struct("HP")  # struct sock_fprog
FPROG_SIZE = _FPROG.size
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h

PACKET_OUTGOING = 4  # linux/if_packet.h: the packet is on its way to the wire
_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE, linux/filter.h

_BETWEEN_TERMS = re.compile(r"\|\||&&|(?<![-.\w])(?:or|and)(?![-.\w])")

# prctl(2), seccomp(2), linux/seccomp.h; the numbers of socket(2) in asm/unistd_64.h and asm-generic/unistd.h
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _LOAD_BYTE = 0x20, 0x30  # BPF_LD|BPF_W|BPF_ABS, BPF_LD|BPF_B|BPF_ABS
_EQUAL, _RETURN = 0x15, 0x06  # BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_SYS_SOCKET = {"x86_64": 41, "aarch64": 198, "riscv64": 198, "loongarch64": 198}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """A filter. instructions: an array of struct sock_filter (linux/filter.h), as it lies in memory."""

    expression: str
    instructions: bytes

    def __len__(self) -> int:
        """Instructions in it."""
        return len(self.instructions) // _INSTRUCTION.size


def compile_filter(expression: str) -> Program | None:
    """A program for frames of an Ethernet; None for an empty expression, which lets all pass.

    Blocks for some 0.2 ms, a hostile expression up to 2 s: to be called in a thread. VirtError: EINVAL with
    libpcap's own message, also for a program that this kernel refuses; E2BIG, longer or of more terms or
    instructions than allowed; EOPNOTSUPP, libpcap is not installed.
    """
    expression = expression.strip()
    if not expression:
        return None
    _check_size(expression)
    instructions = _confined(expression)
    _ask_kernel(expression, instructions)
    return Program(expression, instructions)


def sock_fprog(instructions: bytes) -> tuple[bytes, object]:
    """struct sock_fprog of a program, and what has to live as long as the kernel may look at it."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    return _FPROG.pack(len(instructions) // _INSTRUCTION.size, ctypes.addressof(buffer)), buffer


def towards_wire_only(program: Program) -> bytes:
    """The same for a packet socket on the interface, where what comes from the wire passes unasked.

    Instructions as in `Program`; their jumps are relative. linux/filter.h: SKF_AD_PKTTYPE.
    """
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_BYTE, 0, 0, _PACKET_TYPE),
            _INSTRUCTION.pack(_EQUAL, 1, 0, PACKET_OUTGOING),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SNAPLEN),
            program.instructions,
        )
    )


def _check_size(expression: str) -> None:
    if "\0" in expression:
        raise VirtError(errno.EINVAL, f"filter {quoted(expression)} holds a NUL")
    if len(os.fsencode(expression)) > EXPRESSION_MAX:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} is longer than {EXPRESSION_MAX} bytes")
    if len(_BETWEEN_TERMS.findall(expression)) >= TERMS_MAX:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} has more than {TERMS_MAX} terms")


class _BpfProgram(ctypes.Structure):
    """struct bpf_program, pcap/bpf.h; struct bpf_insn is struct sock_filter by another name."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


@cache
def _libpcap() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        break
    else:
        one_left()  # or it may well be installed
        raise VirtError(errno.EOPNOTSUPP, "filters need libpcap: install the package libpcap0.8 (Debian) or libpcap")
    pcap_t = ctypes.c_void_p
    library.pcap_open_dead.restype = pcap_t
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = library.pcap_close.argtypes = [pcap_t]
    program = ctypes.POINTER(_BpfProgram)
    library.pcap_compile.argtypes = [pcap_t, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    library.pcap_freecode.argtypes = [program]
    return library


_one_at_a_time = threading.Lock()  # libpcap before 1.8 compiles with global variables


def _confined(expression: str) -> bytes:
    """The instructions, compiled in a thread of its own that ends with its confinement."""

    def run() -> bytes:
        _forbid_sockets()
        with _one_at_a_time:
            return _compile(_libpcap(), expression)

    return call_apart(run, "compiling a filter")


def _compile(library: ctypes.CDLL, expression: str) -> bytes:
    """Without the optimizer first: how much there is to do for it is seen from the result."""
    instructions = _compile_once(library, expression, optimize=False)
    if len(instructions) > UNOPTIMIZED_MAX * _INSTRUCTION.size:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} is too much for libpcap's optimizer")
    instructions = _compile_once(library, expression, optimize=True)
    if len(instructions) > INSTRUCTIONS_MAX * _INSTRUCTION.size:
        sentence = f"filter {quoted(expression)} needs more than the {INSTRUCTIONS_MAX} instructions that are allowed"
        raise VirtError(errno.E2BIG, sentence)
    return instructions


def _compile_once(library: ctypes.CDLL, expression: str, optimize: bool) -> bytes:
    handle = library.pcap_open_dead(_DLT_EN10MB, _SNAPLEN)
    if not handle:
        raise VirtError(errno.ENOMEM, "libpcap gives no handle to compile a filter with")
    program = _BpfProgram()
    try:
        text = os.fsencode(expression)
        if library.pcap_compile(handle, ctypes.byref(program), text, optimize, _NETMASK_UNKNOWN) != 0:
            one_left()  # or a name is unknown only because /etc/services could not be opened
            message = library.pcap_geterr(handle).decode(errors="replace")
            raise VirtError(errno.EINVAL, f"filter {quoted(expression)}: {message}")
        return ctypes.string_at(program.instructions, program.length * _INSTRUCTION.size)
    finally:
        library.pcap_freecode(ctypes.byref(program))
        library.pcap_close(handle)


def _forbid_sockets() -> None:
    """The calling thread can open no socket from now on: socket(2) is EACCES, what threads are there stays free.

    On machines whose numbers are not known here, and where seccomp is not to be had, nothing is forbidden;
    then a name costs what the resolver takes.
    """
    number = _SYS_SOCKET.get(platform.machine())
    if number is None or struct.calcsize("P") != 8:
        return
    program = b"".join(
        (
            _INSTRUCTION.pack(_LOAD, 0, 0, 0),  # struct seccomp_data begins with the number of the call
            _INSTRUCTION.pack(_EQUAL, 0, 1, number),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EACCES),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SECCOMP_RET_ALLOW),
        )
    )
    fprog, _buffer = sock_fprog(program)
    zero = ctypes.c_ulong(0)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) == 0:
        _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.c_char_p(fprog), zero, zero)


def _ask_kernel(expression: str, instructions: bytes) -> None:
    """Have the kernel check a program as it will when that is attached, on a socket that nobody uses.

    It takes no loops, which protochain would need (net/core/filter.c, bpf_check_classic).
    """
    fprog, _buffer = sock_fprog(instructions)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as judge:
        try:
            judge.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        except OSError as refusal:
            sentence = f"filter {quoted(expression)}: the kernel refuses its program: {refusal.strerror}"
            raise VirtError(refusal.errno or errno.EINVAL, sentence) from refusal
