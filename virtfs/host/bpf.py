"""tcpdump's filter language, compiled by libpcap (pcap_compile(3PCAP)) to classic BPF.

Expressions come from users, and the compiler runs in the daemon. So the size of an expression is limited. Measured with
libpcap 1.10.3: the compile time grows with the square of the number of instructions that the alternatives ("or") need.
An expression of 4 KiB can hold 1400 alternatives, which take 34 s to compile. The optimizer's time grows faster still.
The limits below keep the whole compilation under 2 s.

libpcap asks the resolver about every word that it takes for a host name. On a slow network each such lookup takes 10 s
or more. So the compiler runs in a thread that cannot open sockets. Names from /etc/hosts, /etc/services, /etc/protocols
and /etc/ethers still work. Any other name is reported as unknown at once.
"""

import ctypes
import errno
import platform
import re
import socket
import struct
import threading
from dataclasses import dataclass
from functools import cache

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.core.quoting import quoted
from virtfs.host.descriptors import one_left
from virtfs.host.libc import libc
from virtfs.host.threads import call_apart

EXPRESSION_MAX = 4096  # bytes
TERMS_MAX = 200  # expressions joined by "and" and "or"
UNOPTIMIZED_MAX = 8192  # instructions before the optimizer runs
# BPF_MAXINSNS (linux/bpf_common.h), minus the three instructions that outgoing_only() adds.
INSTRUCTIONS_MAX = 4096 - 3

# The file names of libpcap on Debian, on other systems with glibc, and on systems with musl.
_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
_DLT_EN10MB = 1
# The snap length in bytes: tcpdump's default, longer than any frame. A program accepts a frame by returning this value.
_SNAPLEN = 262144
_NETMASK_UNKNOWN = 0xFFFFFFFF


_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter, linux/filter.h
_FPROG = struct.Struct("HP")  # struct sock_fprog
FPROG_SIZE = _FPROG.size
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h

PACKET_OUTGOING = 4  # linux/if_packet.h
_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE, linux/filter.h

_BETWEEN_TERMS = re.compile(r"\|\||&&|(?<![-.\w])(?:or|and)(?![-.\w])")

# See prctl(2), seccomp(2) and linux/seccomp.h. The numbers of socket(2) are in asm/unistd_64.h and
# asm-generic/unistd.h.
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW, _SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _LOAD_BYTE = 0x20, 0x30  # BPF_LD|BPF_W|BPF_ABS, BPF_LD|BPF_B|BPF_ABS
_EQUAL, _RETURN = 0x15, 0x06  # BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_SYS_SOCKET = {"x86_64": 41, "aarch64": 198, "riscv64": 198, "loongarch64": 198}


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled filter.

    expression: the source text. instructions: an array of struct sock_filter (linux/filter.h), as bytes.
    """

    expression: str
    instructions: bytes

    def __len__(self) -> int:
        """Return the number of instructions."""
        return len(self.instructions) // _INSTRUCTION.size


# Rejects every frame: BPF_RET with the length 0.
REJECT_ALL = Program("", _INSTRUCTION.pack(0x06, 0, 0, 0))


def compile_filter(expression: str) -> Program | None:
    """Compile an expression to a program for Ethernet frames.

    Return None for an empty expression, which accepts all frames. Blocks for about 0.2 ms, or up to 2 s for a hostile
    expression, so call it in a thread. VirtError: EINVAL, libpcap rejects the expression (the error quotes libpcap's
    message), or this kernel refuses the program; E2BIG, the expression is too long, or has too many terms or
    instructions; EOPNOTSUPP, libpcap is not installed.
    """
    expression = expression.strip()
    if not expression:
        return None
    _check_size(expression)
    instructions = _compile_confined(expression)
    _ask_kernel(expression, instructions)
    return Program(expression, instructions)


def sock_fprog(instructions: bytes) -> tuple[bytes, object]:
    """Return a packed struct sock_fprog for a program, and the buffer that it points to.

    The caller must keep the buffer alive until the kernel has read the program.
    """
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    return _FPROG.pack(len(instructions) // _INSTRUCTION.size, ctypes.addressof(buffer)), buffer


def outgoing_only(program: Program) -> bytes:
    """Return the instructions of a program, extended to accept all frames from the wire.

    The result is for a packet socket on the tap. Three added instructions test the direction of a frame
    (SKF_AD_PKTTYPE, linux/filter.h). Only frames to the wire reach the original program. Its jumps are relative, so it
    works unchanged after the added instructions.
    """
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_BYTE, 0, 0, _PACKET_TYPE),
            _INSTRUCTION.pack(_EQUAL, 1, 0, PACKET_OUTGOING),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SNAPLEN),
            program.instructions,
        )
    )


class Matcher:
    """Runs a compiled filter on frames in this process (pcap_offline_filter(3PCAP)).

    VirtError EOPNOTSUPP: libpcap is not installed.
    """

    def __init__(self, program: Program) -> None:
        self._run = _libpcap().pcap_offline_filter
        self._instructions = ctypes.create_string_buffer(program.instructions, len(program.instructions))
        self._program = _BpfProgram(len(program), ctypes.addressof(self._instructions))
        self._header = _PacketHeader()

    def __call__(self, frame: bytes, length: int) -> bool:
        """Return whether the filter accepts a frame.

        frame: the frame, or only its beginning. length: the length of the whole frame in bytes.
        """
        self._header.captured, self._header.length = len(frame), length
        return bool(self._run(ctypes.byref(self._program), ctypes.byref(self._header), frame))


def _check_size(expression: str) -> None:
    if "\0" in expression:
        raise VirtError(errno.EINVAL, f"filter {quoted(expression)} contains a NUL byte")
    if len(to_bytes(expression)) > EXPRESSION_MAX:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} is longer than {EXPRESSION_MAX} bytes")
    if len(_BETWEEN_TERMS.findall(expression)) >= TERMS_MAX:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} has more than {TERMS_MAX} terms")


class _BpfProgram(ctypes.Structure):
    """struct bpf_program (pcap/bpf.h). Its struct bpf_insn has the layout of struct sock_filter."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class _PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr (pcap/pcap.h). The time, a struct timeval, is not used."""

    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


@cache
def _libpcap() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        break
    else:
        # dlopen(3) also fails if no descriptor is free. In that case one_left() raises EMFILE or ENFILE.
        one_left()
        raise VirtError(errno.EOPNOTSUPP, "filters need libpcap: install the package libpcap0.8 (Debian) or libpcap")
    pcap_t = ctypes.c_void_p
    library.pcap_open_dead.restype = pcap_t
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = library.pcap_close.argtypes = [pcap_t]
    program = ctypes.POINTER(_BpfProgram)
    library.pcap_compile.argtypes = [pcap_t, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    library.pcap_freecode.argtypes = [program]
    library.pcap_offline_filter.argtypes = [program, ctypes.POINTER(_PacketHeader), ctypes.c_char_p]
    return library


# In libpcap before 1.8, pcap_compile() uses global variables, so only one thread may call it at a time.
_one_at_a_time = threading.Lock()


def _compile_confined(expression: str) -> bytes:
    """Compile an expression in a new thread that cannot open sockets, and return the instructions."""

    def run() -> bytes:
        _forbid_sockets()
        with _one_at_a_time:
            return _compile(_libpcap(), expression)

    return call_apart(run, "compiling a filter")


def _compile(library: ctypes.CDLL, expression: str) -> bytes:
    """Compile an expression and return the instructions.

    The first pass omits the optimizer. The size of the unoptimized program shows whether the optimizer would take too
    long.
    """
    instructions = _compile_once(library, expression, optimize=False)
    if len(instructions) > UNOPTIMIZED_MAX * _INSTRUCTION.size:
        raise VirtError(errno.E2BIG, f"filter {quoted(expression)} is too complex for libpcap: use fewer terms")
    instructions = _compile_once(library, expression, optimize=True)
    if len(instructions) > INSTRUCTIONS_MAX * _INSTRUCTION.size:
        sentence = f"filter {quoted(expression)} needs more than {INSTRUCTIONS_MAX} instructions, the kernel's limit"
        raise VirtError(errno.E2BIG, sentence)
    return instructions


def _compile_once(library: ctypes.CDLL, expression: str, optimize: bool) -> bytes:
    handle = library.pcap_open_dead(_DLT_EN10MB, _SNAPLEN)
    if not handle:
        raise VirtError(errno.ENOMEM, "libpcap cannot allocate a handle to compile a filter")
    program = _BpfProgram()
    try:
        text = to_bytes(expression)
        if library.pcap_compile(handle, ctypes.byref(program), text, optimize, _NETMASK_UNKNOWN) != 0:
            # If no descriptor is free, libpcap cannot open /etc/services, and reports service names in the filter as
            # unknown. In that case one_left() raises EMFILE or ENFILE.
            one_left()
            message = to_text(library.pcap_geterr(handle))
            raise VirtError(errno.EINVAL, f"filter {quoted(expression)}: {message}")
        return ctypes.string_at(program.instructions, program.length * _INSTRUCTION.size)
    finally:
        library.pcap_freecode(ctypes.byref(program))
        library.pcap_close(handle)


def _forbid_sockets() -> None:
    """Make every later socket(2) call of the calling thread fail with EACCES. Other threads are not affected.

    Does nothing if seccomp is unavailable, in a 32-bit process, or if _SYS_SOCKET has no entry for this architecture. A
    compilation may then block as long as the resolver does.
    """
    number = _SYS_SOCKET.get(platform.machine())
    if number is None or struct.calcsize("P") != 8:
        return
    program = b"".join(
        (
            _INSTRUCTION.pack(_LOAD, 0, 0, 0),  # the number of the system call, the first member of struct seccomp_data
            _INSTRUCTION.pack(_EQUAL, 0, 1, number),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SECCOMP_RET_ERRNO | errno.EACCES),
            _INSTRUCTION.pack(_RETURN, 0, 0, _SECCOMP_RET_ALLOW),
        )
    )
    fprog, _buffer = sock_fprog(program)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) == 0:
        libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.c_char_p(fprog), zero, zero)


def _ask_kernel(expression: str, instructions: bytes) -> None:
    """Let the kernel check a program by attaching it to an unused socket.

    The kernel refuses loops (net/core/filter.c bpf_check_classic), which libpcap generates for `protochain`.
    """
    fprog, _buffer = sock_fprog(instructions)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unused:
        try:
            unused.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        except OSError as refusal:
            sentence = f"filter {quoted(expression)}: the kernel refuses the compiled program: {refusal.strerror}"
            raise VirtError(refusal.errno or errno.EINVAL, sentence) from refusal
