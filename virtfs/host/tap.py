"""The far end of a tap: the owner of a descriptor of /dev/net/tun (drivers/net/tun.c, tuntap.rst).

IFF_VNET_HDR is always requested. Offload needs this flag and may be turned on at any time, but the flag cannot change
while the tap is attached. If an existing tap has several queues (IFF_MULTI_QUEUE), virtfs attaches one queue, and the
tap then works like any other.
"""

import errno
import fcntl
import os
import select
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

from virtfs.core.bytestext import to_bytes, to_text
from virtfs.core.errors import VirtError
from virtfs.core.ids import Unit
from virtfs.host import netlink_messages as m
from virtfs.host import netns
from virtfs.host.bpf import FPROG_SIZE, Program, sock_fprog
from virtfs.host.descriptors import keep_reserve
from virtfs.host.rtnl import Rtnl
from virtfs.host.tap_absent import Absent
from virtfs.host.tap_found import find, is_another
from virtfs.host.tap_protocol import OFFLOAD_NONE, OFFLOAD_UDP, VNET_HEADER

T = TypeVar("T")

_DEVICE = "/dev/net/tun"

# linux/if_tun.h, encoded as in asm-generic/ioctl.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOFFLOAD = 0x400454D0
_TUNGETIFF = 0x800454D2
_TUNGETVNETHDRSZ = 0x800454D7
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETCARRIER = 0x400454E2
_TUNATTACHFILTER = 0x400054D5 | FPROG_SIZE << 16
_TUNDETACHFILTER = 0x400054D6 | FPROG_SIZE << 16
_TUNGETDEVNETNS = 0x54E3
_TUNSETOWNER = 0x400454CC
_TUNSETIFINDEX = 0x400454DA

_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000  # create the tap or fail; never attach
_FLAGS = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR

_INT = struct.Struct("i")
# struct ifreq, linux/if.h: the name, and a union of 24 bytes that begins with the flags
_IFREQ = struct.Struct("16sH22x")

_NO_DEVICE = {
    errno.ENOENT: f"there is no {_DEVICE}: load the module (modprobe tun), or give the container the device"
    f" (--device {_DEVICE})",
    errno.ENODEV: f"{_DEVICE} has no driver: load the module (modprobe tun)",
    errno.ENXIO: f"{_DEVICE} has no driver: load the module (modprobe tun)",
}


class TapTaken(VirtError):
    """Another program holds the tap, or the interface of that name is not a tap. The errno is EBUSY."""


class TapHeld(TapTaken):
    """Another program holds the tap."""


class Tap:
    """An implementation of TapDevice with a real tap. TapDevice documents each method.

    A closed Tap behaves like one whose interface is gone.
    """

    def __init__(self, fd: int, made: bool) -> None:
        """Take ownership of a descriptor. To get a tap, call Tap.open() instead."""
        self.fd = fd
        self.made = made
        self._header_found = VNET_HEADER
        self._filtered = False
        self._tags_found: tuple[str, ...] = ()  # features to re-enable when the filter is removed
        self._absent: Absent | None = None
        self.multi_queue = False

    @classmethod
    def open(cls, unit: Unit) -> Self:
        """Attach to tap<unit> in the calling thread's network namespace, or create it if it does not exist.

        Blocks for about 0.2 ms if it creates the tap. TapHeld: another program holds the tap. TapTaken: the interface
        with that name is not a tap. VirtError: ENODEV, there is no /dev/net/tun; EPERM or EACCES, this process lacks
        the permission; EMFILE, too few descriptors are left; other errors from the kernel.
        """
        name = f"tap{unit}"
        fd = _open_device()
        keep_reserve(fd)
        tap = cls(fd, made=True)
        try:
            if not tap._create(name):
                tap._attach(name)
        except BaseException:
            tap.close()
            raise
        return tap

    def _create(self, name: str) -> bool:
        """Create the interface. Return False if an interface with that name already exists."""
        try:
            self._set_interface(name, _FLAGS | _IFF_TUN_EXCL)
        except TapTaken:
            return False
        return True

    def _attach(self, name: str) -> None:
        """Attach to an existing tap, and store its settings."""
        deleted = TapTaken(errno.EBUSY, f'"{name}" was deleted while virtfs was attaching to it')
        found = find(name)
        if found is None:
            raise deleted
        if found.busy:
            error = TapHeld if found.held else TapTaken
            raise error(errno.EBUSY, f'"{name}" {found.busy}')
        self.multi_queue = found.multi_queue
        try:
            self._set_interface(name, _FLAGS | (_IFF_MULTI_QUEUE if found.multi_queue else 0))
        except TapTaken as refusal:
            raise TapHeld(refusal.errno, refusal.strerror) from refusal
        if is_another(name, found.index):
            raise deleted
        self.made = False
        self._header_found = _INT.unpack(fcntl.ioctl(self.fd, _TUNGETVNETHDRSZ, bytes(_INT.size)))[0]
        fcntl.ioctl(self.fd, _TUNSETVNETHDRSZ, _INT.pack(VNET_HEADER))
        # The program that used the tap before may have left offload turned on.
        self.set_offload(OFFLOAD_NONE)

    def _set_interface(self, name: str, flags: int) -> None:
        try:
            fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        except OSError as refusal:
            error = TapTaken if refusal.errno == errno.EBUSY else VirtError
            raise error(refusal.errno or errno.EIO, _why_not(name, refusal)) from refusal

    def name(self) -> str:
        """Return the interface's current name, even after a rename. VirtError ENXIO: the interface is gone."""
        if self._absent is not None:
            return self._absent.name()
        try:
            answer = fcntl.ioctl(self.fd, _TUNGETIFF, bytes(_IFREQ.size))
        except (OSError, ValueError) as refusal:
            # EBADFD: the interface was deleted. ValueError: the tap is closed, and fd is -1.
            number = getattr(refusal, "errno", errno.EBADFD)
            if number in (errno.EBADFD, errno.EBADF):
                raise VirtError(errno.ENXIO, "the tap's interface is gone") from refusal
            raise VirtError(number, f"cannot read the tap's name: {os.strerror(number)}") from refusal
        return to_text(_IFREQ.unpack(answer)[0].rstrip(b"\0"))

    def alive(self) -> bool:
        """Return whether the interface still exists, in any namespace."""
        if self._absent is not None:
            return self._absent.alive()
        return self.fd >= 0 and not _poll(self.fd) & (select.POLLERR | select.POLLNVAL)

    def netns(self) -> int:
        """Return a new descriptor of the network namespace of the interface; the caller must close it.

        VirtError ENXIO: the interface is gone, or its namespace is being destroyed. EPERM: this process may not
        enter the namespace. EMFILE, ENFILE, ENOMEM: no descriptor is left.
        """
        if self._absent is not None:
            return self._absent.netns()
        try:
            return fcntl.ioctl(self.fd, _TUNGETDEVNETNS)
        except (OSError, ValueError) as refusal:
            if isinstance(refusal, OSError) and refusal.errno == errno.EPERM:
                sentence = "this process may not enter the tap's network namespace"
                raise VirtError(errno.EPERM, sentence) from refusal
            if isinstance(refusal, OSError) and refusal.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                sentence = f"cannot open the tap's network namespace: {refusal.strerror}"
                raise VirtError(refusal.errno, sentence) from refusal
            raise VirtError(errno.ENXIO, "the tap's interface is gone") from refusal

    def set_carrier(self, on: bool) -> None:
        """Set whether the host sees a carrier. VirtError ENXIO: the interface is gone."""
        self._tell(_TUNSETCARRIER, _INT.pack(on))

    def set_persist(self, on: bool) -> None:
        """Set whether the interface remains when the descriptor is closed. VirtError ENXIO: the interface is gone."""
        self._tell(_TUNSETPERSIST, int(on))

    def set_offload(self, flags: int) -> None:
        """Set the offload of frames that the host sends. flags: OFFLOAD_NONE or OFFLOAD_ALL.

        OFFLOAD_ALL does not include OFFLOAD_UDP if the kernel is older than Linux 6.2.
        Features that were turned off with ethtool(8) stay off, unless this process may not enter the namespace of the
        interface, or has no descriptor left. Blocks for a few ms. VirtError ENXIO: the interface is gone.
        """

        def change() -> None:
            try:
                self._tell(_TUNSETOFFLOAD, flags)
            except VirtError as refusal:
                if refusal.errno != errno.EINVAL or not flags & OFFLOAD_UDP:
                    raise
                self._tell(_TUNSETOFFLOAD, flags & ~OFFLOAD_UDP)

        try:
            from virtfs.host import features  # imports a part of pyroute2, which takes 40 ms

            self._in_its_netns(lambda: features.keep_wanted(self.name(), change))
        except OSError as refusal:  # also of the import, which needs a descriptor
            if refusal.errno == errno.ENXIO:
                raise
            change()

    def set_filter(self, program: Program | None) -> None:
        """Set the filter that selects the frames for the reader. None removes it.

        Blocks for about 3 ms. A filter replaces an earlier one atomically.
        VirtError: ENXIO, the interface is gone; EPERM, this process may not enter its namespace; ENOMEM, the filter
        is larger than net.core.optmem_max allows.
        """
        if program is None:
            self._tell(_TUNDETACHFILTER, bytes(FPROG_SIZE))
            self._filtered = False
            self._put_tags_back()
            return
        from virtfs.host import vlantags

        if not self._filtered:
            self._tags_found += self._in_its_netns(lambda: vlantags.put_in_frames(self.name()))
        fprog, _buffer = sock_fprog(program.instructions)
        try:
            self._tell(_TUNATTACHFILTER, fprog)
        except VirtError:
            if not self._filtered:
                self._put_tags_back()
            raise
        self._filtered = True

    def _put_tags_back(self) -> None:
        """Undo vlantags.put_in_frames(). If this fails, the next removal of a filter tries again."""
        found = self._tags_found
        if found:
            with suppress(OSError):
                from virtfs.host import vlantags

                self._in_its_netns(lambda: vlantags.put_back(self.name(), found))
                self._tags_found = ()

    @property
    def attached(self) -> bool:
        """Whether the descriptor is attached to the interface. False after let_go() and after a failed renew()."""
        return self._absent is None

    def renew(self, header: bool = True) -> None:
        """Attach to the interface with a new open file description, and close the old one.

        Other processes may share the old description. The interface becomes persistent. Its carrier is off for a
        moment. Blocks for about 16 ms.
        header: whether a virtio_net_hdr precedes each frame from now on.
        VirtError: TapTaken, another process still has the old description open, or has attached to the tap; ENXIO, the
        interface is gone. After these errors the tap is not attached, and another renew() may succeed.
        """

        def attach() -> None:
            index = self._detach()
            flags = _FLAGS if header else _FLAGS & ~_IFF_VNET_HDR
            name = self.name()
            try:
                fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(to_bytes(name), flags))
            except OSError as refusal:
                error = TapTaken if refusal.errno == errno.EBUSY else VirtError
                raise error(refusal.errno or errno.EIO, _why_not(name, refusal)) from refusal
            if is_another(name, index):
                self._detach()
                raise VirtError(errno.ENXIO, "the tap's interface is gone")
            self._be_present()

        self._in_its_netns(attach)

    def let_go(self, owner: int) -> None:
        """Detach from the interface without deleting it. A process of the user `owner` may then attach to it.

        To use the tap again, call renew() or make_again(). Blocks for about 16 ms. VirtError: ENXIO, the interface is
        gone; EINVAL, the user has no id in this user namespace.
        """
        self._in_its_netns(lambda: self._detach(owner))

    def make_again(self) -> None:
        """Delete the interface, if it still exists, and recreate it with the same name, index and namespace.

        A process that has a copy of the tap's descriptor can then no longer use the tap. All settings of the interface
        except its name, index and namespace are lost. Call this only while `attached` is False. VirtError: errors from
        the kernel.
        """
        absent = self._absent
        if absent is None:
            raise ValueError("the tap is attached")

        def create() -> None:
            name = absent.last_name
            with suppress(VirtError):
                name = absent.name()
                with Rtnl() as rtnl:
                    rtnl.ask(m.RTM_DELLINK, m.link(absent.index))
            fresh = _open_device()
            os.dup2(fresh, self.fd, inheritable=False)
            os.close(fresh)
            try:
                fcntl.ioctl(self.fd, _TUNSETIFINDEX, _INT.pack(absent.index))
                fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(to_bytes(name), _FLAGS | _IFF_TUN_EXCL))
                fcntl.ioctl(self.fd, _TUNSETVNETHDRSZ, _INT.pack(VNET_HEADER))
            except OSError as refusal:
                raise VirtError(refusal.errno or errno.EIO, f'"{name}": {refusal.strerror}') from refusal
            self._filtered, self._tags_found = False, ()
            self._be_present()

        self._in_its_netns(create)

    def _detach(self, owner: int | None = None) -> int:
        """Replace the descriptor with one that is not attached. Return the index of the interface.

        owner: the user who may attach, or None for root only.
        Call this in the namespace of the interface, because the new descriptor can only attach there.
        """
        fresh = _open_device()
        try:
            if self._absent is None:
                absent = Absent(self.netns, self.name())
                try:
                    # Any user could attach to a persistent tap without an owner (drivers/net/tun.c tun_not_capable).
                    if self.made or owner is not None:
                        self._tell(_TUNSETOWNER, os.geteuid() if owner is None else owner)
                    self._tell(_TUNSETPERSIST, 1)
                except BaseException:
                    absent.close()
                    raise
                self._absent = absent
            os.dup2(fresh, self.fd, inheritable=False)
            return self._absent.index
        finally:
            os.close(fresh)

    def _be_present(self) -> None:
        absent, self._absent = self._absent, None
        if absent is not None:
            absent.close()

    def tell(self, request: int, argument: int | bytes) -> None:
        """Issue an ioctl of linux/if_tun.h. VirtError: ENXIO, the interface is gone; or the errno of the ioctl."""
        self._tell(request, argument)

    def _in_its_netns(self, function: Callable[[], T]) -> T:
        """Call a function in the interface's network namespace."""
        try:
            return netns.where(self, function)
        except PermissionError as refusal:
            sentence = "this process may not enter the tap's network namespace"
            raise VirtError(errno.EPERM, sentence) from refusal

    def _tell(self, request: int, argument: int | bytes) -> None:
        try:
            fcntl.ioctl(self.fd, request, argument)
        except (OSError, ValueError) as refusal:
            if self.alive():
                number = getattr(refusal, "errno", errno.EINVAL)
                sentence = f"the tap refuses ioctl {request:#x}: {os.strerror(number)}"
                raise VirtError(number, sentence) from refusal
            raise VirtError(errno.ENXIO, "the tap's interface is gone") from refusal

    def close(self) -> None:
        """Close the descriptor. If the tap existed before open(), restore its header size and turn its offload off.

        Blocks for about 16 ms. When close() returns, another tap can use the unit.
        """
        if self._filtered:
            # A persistent tap keeps a pointer to the program in our memory. When another process attaches, the kernel
            # follows this pointer in the memory of that process, and the attach fails if no valid program is there
            # (drivers/net/tun.c tun_attach). A process that sets IFF_NO_PI is not affected, because IFF_NO_PI is
            # the same bit as IFF_NOFILTER.
            with suppress(OSError):
                self.set_filter(None)
        if self.fd >= 0 and not self.made:
            with suppress(OSError):
                self.set_offload(OFFLOAD_NONE)
        self._be_present()
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            if not self.made and not _poll(fd) & select.POLLERR:
                fcntl.ioctl(fd, _TUNSETVNETHDRSZ, _INT.pack(self._header_found))
        except OSError:
            pass  # The tap was never attached or has just been deleted, so there is nothing to restore.
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as refusal:
        if refusal.errno in _NO_DEVICE:
            raise VirtError(errno.ENODEV, _NO_DEVICE[refusal.errno]) from refusal
        if refusal.errno in (errno.EACCES, errno.EPERM):
            sentence = f"cannot open {_DEVICE}: run as root, set its mode to 0666, or give the container access to it"
            raise VirtError(refusal.errno, sentence) from refusal
        raise VirtError(refusal.errno or errno.EIO, f"{_DEVICE}: {refusal.strerror}") from refusal


def _why_not(name: str, refusal: OSError) -> str:
    if refusal.errno == errno.EBUSY:
        return f'"{name}" is held by another program'
    if refusal.errno == errno.EPERM:
        return f'creating "{name}" or attaching to it needs CAP_NET_ADMIN in this network namespace'
    return f'"{name}": {refusal.strerror}'


def _poll(fd: int) -> int:
    """Return the current poll(2) events of a descriptor. Unlike select(2), poll(2) accepts numbers above 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return next((events for _fd, events in poll.poll(0)), 0)
