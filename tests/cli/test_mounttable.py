"""The mount table, with mounts that any user can make in a namespace of his own or with fusermount3."""

from virtfs.fuse.mounttable import parse

TABLE = b"""\
22 1 0:20 / /a\rb\x0c\\040c rw - tmpfs  rw,size=4k
a line of another format
36 22 0:35 / /mnt\\0402\xff rw,noatime shared:1 - fuse.virtfs virtfs rw,user_id=7
"""


def test_odd_names_do_not_hide_other_mounts() -> None:
    """A directory may contain any white space, and a source may be empty. Only blanks separate fields."""
    one, other = parse(TABLE)
    assert (one.directory, one.source, one.options) == ("/a\rb\x0c c", "", ("rw", "size=4k"))
    assert (other.directory, other.virtfs, other.option("user_id")) == ("/mnt 2\udcff", True, "7")
