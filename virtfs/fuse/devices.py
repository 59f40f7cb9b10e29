"""Requests on device files, except the READs and WRITEs that the channel's loop answers inline."""

import errno
from collections.abc import Callable
from functools import partial

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.device import DeviceFile, DeviceHandle, FixedHandle, PollId, Unique
from virtfs.files.text import TextHandle
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Handles, Inodes
from virtfs.fuse.later import Later
from virtfs.fuse.offsets import Offsets
from virtfs.fuse.parked import Waiting
from virtfs.fuse.request import Request
from virtfs.fuse.text_pollers import made_for_poller

# FOPEN_NOFLUSH: there is no write-back, so close(2) has nothing to flush. Linux before 5.16 sends FLUSH anyway.
DEVICE_FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NONSEEKABLE | p.FOPEN_STREAM | p.FOPEN_NOFLUSH


class Devices:
    """Answers requests on device files. Each function returns whether another request is likely to follow at once.

    report: called with the error and the user when an open fails.
    """

    def __init__(
        self,
        answers: Answers,
        inodes: Inodes,
        handles: Handles,
        waiting: Waiting,
        later: Later,
        report: Callable[[VirtError, User], None],
    ) -> None:
        self._answers = answers
        self._inodes = inodes
        self._handles = handles
        self._waiting = waiting
        self._later = later
        self._offsets = Offsets(answers, handles)
        self._report = report

    def open(self, node: DeviceFile, request: Request) -> bool:
        flags, _ = request.body(p.fuse_open_in)
        user, unique, thread = request.user_and_process, request.unique, request.thread
        try:
            self._handles.begin(user)
            try:
                opened = node.admit(flags, user)
                if isinstance(opened, DeviceHandle):
                    self._opened(unique, opened)
                else:
                    work = partial(self._later.open, unique, thread, node, opened, user, self._opened)
                    self._later.start(work, name=f"opening {node.label}")
            except BaseException:
                self._handles.closed(user)
                raise
        except (OSError, MemoryError) as failure:
            self._report(refusal := node.about(failure), user)
            raise refusal from failure
        return True

    def _opened(self, unique: Unique, handle: DeviceHandle) -> None:
        fh = self._handles.add_device(handle)
        if isinstance(handle, FixedHandle):
            inode = self._inodes.number(handle.node)
            self._later.start(partial(self._offsets.opened, unique, fh, inode), name=f"opening {handle.node.label}")
        else:
            self._answers.answer(unique, p.fuse_open_out.pack(fh, DEVICE_FLAGS, 0))

    def read_fixed(self, request: Request) -> bool:
        """Answer a READ of a fixed file, or a READ of a device file that the loop could not answer."""
        self._offsets.read(request.unique, request.fh, request.message)
        return True

    def seek(self, request: Request) -> bool:
        self._offsets.seek(request.unique, request.fh, request.message)
        return True

    def poll(self, request: Request) -> bool:
        """Answer a POLL of any file, including a text file."""
        fh, kh, flags, _ = request.body(p.fuse_poll_in)
        device = self._handles.devices.get(fh)
        handle = device or self._handles.fixed.get(fh) or self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "the file handle is not open")
        revents = handle.poll()
        if flags & p.FUSE_POLL_SCHEDULE_NOTIFY:
            handle.kh = PollId(kh)
            if device is not None:
                device.told = revents
                device.waiters.park_poll(PollId(kh), device, self._waiting)
                device.waiters.started()
        if isinstance(handle, TextHandle) and handle.node.claim():
            work = partial(made_for_poller, handle.node, handle.user, self._later.turn, self._handles, self._answers)
            self._later.start(work, name="making a text for a poller")
        self._answers.answer(request.unique, p.fuse_poll_out.pack(revents, 0))
        return device is not None

    def ioctl(self, request: Request) -> bool:
        fh, _, command, _, _, out_size = request.body(p.fuse_ioctl_in)
        handle = self._handles.devices.get(fh) or self._handles.fixed[fh]
        argument = bytes(request.message[p.BODY + p.fuse_ioctl_in.size :])
        answer = handle.ioctl(command, argument)[:out_size]
        self._answers.answer(request.unique, p.fuse_ioctl_out.pack(0, 0, 0, 0) + answer)
        return True

    def flush(self, request: Request) -> bool:
        """Answer a FLUSH of any file, including a text file."""
        fh = request.fh
        self._answers.answer(request.unique)
        return fh in self._handles.devices

    def fsync(self, request: Request) -> bool:
        self._handles.devices[request.fh].sync()
        self._answers.answer(request.unique)
        return True

    def release(self, request: Request) -> bool:
        handle = self._handles.remove_device(request.fh)
        if handle.kh is not None:
            handle.waiters.polls.pop(handle.kh, None)
        handle.release()
        self._answers.answer(request.unique)
        return True
