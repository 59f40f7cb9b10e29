"""The attributes of nodes as stat(2) shows them, in the layout of struct fuse_attr (linux/fuse.h).

The kernel may keep the attributes of a directory for MOMENT. It checks the attributes of each directory in a path, so
keeping them halves the number of requests if a program looks at many files. After a change to a directory's owner,
group or st_nlink, virtfs makes the kernel forget its attributes. MOMENT is short, because programs notice the end of a
server by a stat(2) that fails.

The kernel may also keep the attributes of most files of an interface for KEPT (Node.lasting; see `lasting`). They
contain rights and the size of a text, so virtfs makes the kernel forget them at every change of the interface.

The kernel may also keep the name of a directory that can be removed, such as virt3, for MOMENT; see `removed`.
"""

from functools import partial
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from virtfs.core.ids import User
from virtfs.core.virt import Virt
from virtfs.files.node import Directory, Node
from virtfs.fuse import protocol as p
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Inodes
from virtfs.fuse.lasting import Lasting
from virtfs.fuse.removed import Removed

BLOCK = 4096  # st_blksize
# How long the kernel may cache a name in a steady directory, in seconds: in effect, as long as the directory exists.
# The kernel looks up the directory itself each time, and drops the names below a directory that is gone or has been
# replaced (fs/namei.c lookup_fast, fs/dcache.c d_invalidate).
FOR_GOOD = 1 << 24
# How long the kernel may keep the attributes of a directory, and the name of one that can be removed, in ns.
MOMENT = 20_000_000
# How long the kernel may keep the attributes of a directory that it has looked up, in ns. It needs them to resolve the
# rest of the path. After a change, virtfs makes the kernel forget them. But that has no effect until the kernel has
# made an inode for the answer, so this must be short. After a READDIRPLUS, virtfs repeats the notification
# (Lasting.again), so MOMENT applies.
WALK = 4_000_000
# How long the kernel may keep the attributes of a file, in ns. A program that reads a directory looks at each of its
# files within this time, even on a busy machine.
KEPT = 100_000_000
SECOND = 1_000_000_000  # ns

_Fields = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


class Attributes:
    """Builds the attributes of the nodes of one tree. inodes: their inode numbers. answers: sends notifications.

    removed: removed directories whose names the kernel may still have.
    lasting: the files whose attributes the kernel may still have.
    """

    def __init__(self, inodes: Inodes, answers: Answers) -> None:
        self._inodes = inodes
        self._answers = answers
        self.removed = Removed()
        self.lasting = Lasting(inodes, answers)
        # The directories whose attributes the kernel may keep, with the values of those attributes that can change.
        self._kept: WeakKeyDictionary[Directory, tuple[int, int, int]] = WeakKeyDictionary()
        self._watched: WeakSet[Directory] = WeakSet()
        self._named: WeakSet[Directory] = WeakSet()  # directories whose names the kernel may keep for MOMENT

    def of(self, node: Node, user: User | None = None) -> _Fields:
        """Return the fields of a struct fuse_attr.

        user: the user to whom size and times are shown. If None, the size is the one last reported to the kernel.
        """
        size = node.size(user)
        accessed, modified = node.times(user)
        born = node.born
        owner = node.owner
        return (
            self._inodes.number(node),
            size,
            # If st_blocks were too small for st_size, cp and tar would treat the file as sparse.
            -(-size // 512),
            accessed // SECOND,
            modified // SECOND,
            born // SECOND,
            accessed % SECOND,
            modified % SECOND,
            born % SECOND,
            node.kind | node.permissions(),
            node.links if isinstance(node, Directory) else 1,
            owner.owner,
            owner.group,
            0,
            BLOCK,
            0,
        )

    def answer(self, node: Node, user: User) -> bytes:
        """Return a fuse_attr_out, the body of the answer to a GETATTR."""
        fields = self.of(node, user)
        valid = 0
        if isinstance(node, Directory):
            if node.links:
                self._keep(node)
                valid = MOMENT
        elif node.lasting and self._send(node, fields):
            valid = KEPT
        return p.fuse_attr_out.pack(0, valid, 0, *fields)

    def entry(self, directory: Directory, name: str, node: Node, user: User | None = None) -> bytes:
        """Return a fuse_entry_out for a name in a directory, and the node of that name.

        user: the user who asks. If None, the kernel may not keep the attributes of a file. If not, the caller makes the
        kernel forget the attributes again (Lasting.again) if they change before the kernel has made the inode.
        """
        fields = self.of(node, user if node.lasting else None)
        seconds, name_ns, valid = 0, 0, 0
        if directory.steady or name in directory.fixed:
            seconds = FOR_GOOD
            if isinstance(node, Directory):
                if node.links:
                    self._keep(node)
                    valid = WALK if user is None else MOMENT
            elif user is not None and node.lasting and self._send(node, fields):
                valid = KEPT
        elif isinstance(node, Directory):
            # Do not let the kernel keep the directory's attributes: they could hide its removal for a moment.
            name_ns = MOMENT
            self._watch(node)
            self._named.add(node)
        return p.fuse_entry_out.pack(fields[0], 0, seconds, 0, name_ns, valid, *fields)

    def _send(self, node: Node, fields: _Fields) -> bool:
        return self.lasting.send(fields[0], node, fields[1], fields[4] * SECOND + fields[7])

    def _keep(self, directory: Directory) -> None:
        self._watch(directory)
        self._kept[directory] = _changing(directory)

    def _watch(self, directory: Directory) -> None:
        if directory not in self._watched:
            self._watched.add(directory)
            changed = partial(self._changed, ref(directory))
            directory.listeners.append(changed)
            if isinstance(directory.owner, Virt):
                directory.owner.listeners.append(changed)

    def _changed(self, of: "ReferenceType[Directory]") -> None:
        directory = of()
        if directory is None:
            return
        if self._kept.get(directory, now := _changing(directory)) != now:
            del self._kept[directory]
            self._answers.forget_attributes(self._inodes.number(directory))
        if not directory.links and directory in self._named:
            self.removed.add(self._inodes.number(directory))


def _changing(directory: Directory) -> tuple[int, int, int]:
    return directory.links, directory.owner.owner, directory.owner.group
