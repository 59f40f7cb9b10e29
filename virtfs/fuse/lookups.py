"""Names and attributes: LOOKUP, GETATTR and READLINK."""

import errno
import os
from collections.abc import Callable

from virtfs.core.bytestext import to_text
from virtfs.core.errors import VirtError, refused
from virtfs.core.ids import User
from virtfs.files.frame import TapReturning
from virtfs.files.node import Directory, Node, Symlink
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.attributes import Attributes
from virtfs.fuse.inodes_handles import Handles, Inodes
from virtfs.fuse.later import Later, Reports
from virtfs.fuse.request import Request


class Lookups:
    """Answers requests for names and attributes.

    later: defers an answer until `reports` is up to date. report: called with the error and the user when a link cannot
    be followed.
    """

    def __init__(
        self,
        answers: Answers,
        inodes: Inodes,
        handles: Handles,
        attributes: Attributes,
        reports: Reports,
        later: Later,
        report: Callable[[VirtError, User], None],
    ) -> None:
        self._answers = answers
        self._inodes = inodes
        self._handles = handles
        self._reports = reports
        self._later = later
        self._attributes = attributes
        self._report = report

    def find(self, inode: int) -> Node | None:
        """Return a node, or None if the file has been removed."""
        return self._inodes.node(inode)

    def node(self, inode: int) -> Node:
        """Return a node. VirtError ENXIO: the file has been removed."""
        node = self._inodes.node(inode)
        if node is None:
            raise VirtError(errno.ENXIO, "the file has been removed")
        return node

    def lookup(self, request: Request) -> bool:
        name = to_text(bytes(request.message[p.BODY :]).partition(b"\0")[0])

        def answer() -> bytes:
            directory = self.node(request.inode)
            if not isinstance(directory, Directory):
                raise VirtError(errno.ENOTDIR, "the file is not a directory")
            node = directory.children.get(name)
            if node is None:
                raise VirtError(errno.ENOENT, "there is no such file")
            return self._attributes.entry(directory, name, node)

        return self._later.when_up_to_date(request, self._reports, answer)

    def getattr(self, request: Request) -> bool:
        user = request.user

        def answer() -> bytes:
            removed = self._attributes.removed
            if removed.walked_to(request.inode, request.thread) and not self._opened(request):
                raise VirtError(errno.ESTALE, "the directory has been removed: walk the path again")
            return self._attributes.answer(self.node(request.inode), user)

        return self._later.when_up_to_date(request, self._reports, answer)

    def _opened(self, request: Request) -> bool:
        """Return whether the calling process has this directory open. If it has, the call may be an fstat(2)."""
        if (node := self._inodes.node(request.inode)) is None:
            return False
        process = request.user_and_process.pid
        listings = self._handles.listings.values()
        return any(listing.directory is node and listing.user.pid == process for listing in listings)

    def readlink(self, request: Request) -> bool:
        node = self.node(request.inode)
        if not isinstance(node, Symlink):
            raise VirtError(errno.EINVAL, "the file is not a symbolic link")
        user = request.user_and_process
        try:
            self._answers.answer(request.unique, os.fsencode(node.follow()))
        except TapReturning as returning:
            self._follow_later(request, node, returning)
            return False
        except (OSError, MemoryError) as failure:
            # The caller is probably about to open the target, so this is a refused open.
            self._report(refusal := refused(failure), user)
            raise refusal from failure
        return True

    def _follow_later(self, request: Request, link: Symlink, returning: TapReturning) -> None:
        """Answer a READLINK once virtfs has the tap of a program that has ended, as an open of `frame` is."""
        user, regained = request.user_and_process, returning.regained

        async def work() -> None:
            await regained()
            if self._later.pending(request.unique):
                self._answers.answer(request.unique, os.fsencode(link.follow()))

        self._later.query(request, work, failed=lambda refusal: self._report(refusal, user))
