"""Open directories: OPENDIR, READDIR, READDIRPLUS and RELEASEDIR."""

import errno
from collections.abc import Callable

from virtfs.core.bytestext import to_bytes
from virtfs.core.errors import VirtError
from virtfs.core.ids import User
from virtfs.files.listing import Listing
from virtfs.files.node import Directory, Node, virt_of
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.attributes import Attributes
from virtfs.fuse.inodes_handles import Handles, Inodes
from virtfs.fuse.later import Reports
from virtfs.fuse.lookups import Lookups
from virtfs.fuse.request import Request

_NO_ENTRY = bytes(p.fuse_entry_out.size)
AT_ONCE = 64  # maximum number of names in an answer; one takes 5 µs. The kernel then asks for the next ones.


class Directories:
    """Answers requests about open directories.

    reports: applies the reports of the kernel before attributes are sent.
    report: called with the error and the user if an open exceeds a limit.
    """

    def __init__(
        self,
        answers: Answers,
        inodes: Inodes,
        handles: Handles,
        attributes: Attributes,
        lookups: Lookups,
        reports: Reports,
        report: Callable[[VirtError, User], None],
    ) -> None:
        self._answers = answers
        self._inodes = inodes
        self._handles = handles
        self._lookups = lookups
        self._reports = reports
        self._report = report
        self._attributes = attributes

    def opendir(self, request: Request) -> bool:
        user = request.user_and_process
        directory = self._lookups.node(request.inode)
        if not isinstance(directory, Directory):
            raise VirtError(errno.ENOTDIR, "the file is not a directory")
        try:
            self._handles.begin(user)
            try:
                listing = Listing(directory, user, self._handles.memory)
            except BaseException:
                self._handles.closed(user)
                raise
        except VirtError as refusal:
            self._report(refusal, user)
            raise
        self._answers.answer(request.unique, p.fuse_open_out.pack(self._handles.add_listing(listing), 0, 0))
        return True

    def readdir(self, request: Request) -> bool:
        return self._read(request, self._listing(request), lambda name, node: b"")

    def readdirplus(self, request: Request) -> bool:
        """Answer a READDIRPLUS. Only names that the kernel may cache are sent with attributes.

        All others have nodeid 0, so that the kernel does not cache them (fs/fuse/readdir.c fuse_direntplus_link).
        """
        listing = self._listing(request)
        directory = listing.directory
        if not directory.steady:
            return self._read(request, listing, lambda name, node: _NO_ENTRY)
        # The user for whom the kernel may keep the attributes. If it is None, the kernel asks for those of each file.
        user = None
        virt = virt_of(directory.owner)
        if virt is not None and self._reports.up_to_date():
            user, listing.sent = request.user, virt.version

        def entry(name: str, node: Node) -> bytes:
            if node is directory:
                return _NO_ENTRY
            try:
                return self._attributes.entry(directory, name, node, user)
            except OSError:  # a text that cannot be made must not hide the other names
                return self._attributes.entry(directory, name, node)

        return self._read(request, listing, entry)

    def _listing(self, request: Request) -> Listing:
        """Return the open directory of a request. Resend notifications that may have had no effect (fuse.lasting)."""
        listing = self._handles.listings.get(request.fh)
        if listing is None:
            raise VirtError(errno.EBADF, "the directory is not open")
        if listing.sent != -1:
            if (virt := virt_of(listing.directory.owner)) is not None and virt.version != listing.sent:
                self._attributes.lasting.again(listing.directory)
            listing.sent = -1
        return listing

    def _read(self, request: Request, listing: Listing, before: Callable[[str, Node], bytes]) -> bool:
        """Answer with as many names as fit, up to AT_ONCE.

        before: returns what precedes the fuse_dirent of each name.
        """
        _, offset, size, *_ = request.body(p.fuse_read_in)
        names, parts, room = listing.names, [], min(size, p.MAX_WRITE)
        for number in range(min(offset, len(names)), len(names)):
            name = names[number]
            if (node := listing.node(name)) is None:
                continue
            encoded = to_bytes(name)
            head = before(name, node)
            inode, kind = self._inodes.number(node), node.kind >> 12
            entry = head + p.fuse_dirent.pack(inode, number + 1, len(encoded), kind) + encoded
            entry += bytes(-len(entry) % 8)
            room -= len(entry)
            if room < 0:
                break
            parts.append(entry)
            if len(parts) == AT_ONCE:
                break
        self._answers.answer(request.unique, b"".join(parts))
        return True

    def releasedir(self, request: Request) -> bool:
        self._listing(request)
        self._handles.remove_listing(request.fh).release()
        self._answers.answer(request.unique)
        return True
