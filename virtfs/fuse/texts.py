"""Text files: OPEN, READ and RELEASE. Writes are in `later`, since they always run in a task.

An answer that may take time is sent by a task, any other answer at once.
"""

import errno
from collections.abc import Callable

from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.device import reads, writes
from virtfs.files.text import Text, TextHandle
from virtfs.forward.tasks import in_thread
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Handles
from virtfs.fuse.lasting import Lasting
from virtfs.fuse.later import Later, Reports
from virtfs.fuse.request import Request

# With direct I/O, one read(2) or write(2) is one request. FOPEN_NOFLUSH: as for device files.
FLAGS = p.FOPEN_DIRECT_IO | p.FOPEN_NOFLUSH


class Texts:
    """Answers requests about text files.

    report: called with the error and the user if an open or a read exceeds a limit.
    """

    def __init__(
        self,
        answers: Answers,
        handles: Handles,
        lasting: Lasting,
        reports: Reports,
        later: Later,
        report: Callable[[VirtError, User], None],
    ) -> None:
        self._answers = answers
        self._handles = handles
        self._lasting = lasting
        self._reports = reports
        self._later = later
        self._report = report

    def open(self, node: Text, request: Request) -> bool:
        """Answer an OPEN. The kernel has checked the permission bits."""
        flags, _ = request.body(p.fuse_open_in)
        user = request.user
        try:
            self._handles.begin(user, node.always)
            try:
                text = None
                if reads(flags):
                    text = node.ready(user) if self._reports.up_to_date() else None
                    if text is None or _grows(node, self._shown(node, request, text)):
                        self._open_later(node, request, user, text)
                        return False
                self._opened(node, user, request)
            except BaseException:
                self._handles.closed(user, node.always)
                raise
        except VirtError as refusal:
            self._report(refusal, user)
            raise
        return True

    def _shown(self, node: Text, request: Request, text: bytes) -> int:
        """Record the text that an open gets, and return its length in bytes."""
        size = node.opened(text)
        self._lasting.opened(request.inode, node, size, node.changed)
        return size

    def _opened(self, node: Text, user: User, request: Request, text: bytes | None = None) -> None:
        """Answer an OPEN. text: a text that has been made for it and that took time."""
        handle = node.open(user, self._handles.memory)
        if text is not None:
            handle.offer(text)
        if writes(request.body(p.fuse_open_in)[0]):
            handle.writes()
        fh = self._handles.add_text(handle)
        self._answers.answer(request.unique, p.fuse_open_out.pack(fh, FLAGS, 0))

    def _open_later(self, node: Text, request: Request, user: User, text: bytes | None) -> None:
        done = False

        async def work() -> None:
            nonlocal done, text
            if text is None:
                await self._reports.caught_up()
                text = await node.fresh(user)
            size = self._shown(node, request, text)
            if _grows(node, size):
                await in_thread(self._answers.grow, request.inode, size, text[-1:])
                node.reported = size
            if self._later.pending(request.unique):
                self._opened(node, user, request, text)
                done = True

        def ended() -> None:
            if not done:
                self._handles.closed(user, node.always)

        def failed(refusal: VirtError) -> None:
            self._report(refusal, user)

        self._later.query(request, work, slow=node.waits, free=True, failed=failed, ended=ended)

    def read(self, request: Request) -> bool:
        """Answer a READ. A READ that fills the page cache gets the text whose length the kernel knows (files.text)."""
        fh, offset, size, how, _, _, _ = request.body(p.fuse_read_in)
        handle = self._handles.texts.get(fh)
        if handle is None:
            raise VirtError(errno.EBADF, "the file handle is not open")
        if not how & p.FUSE_READ_LOCKOWNER:
            self._answers.answer(request.unique, handle.cached(offset, size))
            return False
        if not handle.continues(offset):
            try:
                text = None
                if self._reports.up_to_date():
                    text = handle.offered() or handle.node.ready(handle.user)
                if text is None:
                    self._read_later(handle, request, offset, size)
                    return False
                handle.take(text)
            except VirtError as refusal:
                self._report(refusal, handle.user)
                raise
        self._answers.answer(request.unique, handle.read(offset, size))
        return True

    def _read_later(self, handle: TextHandle, request: Request, offset: int, size: int) -> None:
        async def work() -> None:
            await self._reports.caught_up()
            await handle.renew()
            if self._later.pending(request.unique):
                self._answers.answer(request.unique, handle.read(offset, size))

        def failed(refusal: VirtError) -> None:
            self._report(refusal, handle.user)

        def ended() -> None:
            handle.waiting -= 1

        free = not handle.waiting
        self._later.query(request, work, slow=handle.node.waits, free=free, failed=failed, ended=ended)
        handle.waiting += 1

    def release(self, request: Request) -> bool:
        if request.fh not in self._handles.texts:
            raise VirtError(errno.EBADF, "the file handle is not open")
        self._handles.remove_text(request.fh).release()
        self._answers.answer(request.unique)
        return True


def _grows(node: Text, size: int) -> bool:
    """Return whether the kernel must be told a new size before the answer to OPEN (see Answers.grow)."""
    return size > node.reported and not node.personal
