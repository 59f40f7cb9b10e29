"""The messages of /dev/fuse, laid out as in include/uapi/linux/fuse.h, with the names used there.

A request is a fuse_in_header and a body. An answer is a fuse_out_header and a body. The byte order is little-endian, as
on every machine that virtfs supports.
"""

import struct
from typing import Final

# Linux 5.15, the oldest supported kernel, has protocol version 7.34.
MAJOR: Final = 7
OLDEST_MINOR: Final = 34

FUSE_ROOT_ID: Final = 1

FUSE_LOOKUP: Final = 1
FUSE_FORGET: Final = 2
FUSE_GETATTR: Final = 3
FUSE_SETATTR: Final = 4
FUSE_READLINK: Final = 5
FUSE_OPEN: Final = 14
FUSE_READ: Final = 15
FUSE_WRITE: Final = 16
FUSE_STATFS: Final = 17
FUSE_RELEASE: Final = 18
FUSE_FSYNC: Final = 20
FUSE_FLUSH: Final = 25
FUSE_INIT: Final = 26
FUSE_OPENDIR: Final = 27
FUSE_READDIR: Final = 28
FUSE_RELEASEDIR: Final = 29
FUSE_INTERRUPT: Final = 36
FUSE_IOCTL: Final = 39
FUSE_POLL: Final = 40
FUSE_BATCH_FORGET: Final = 42
FUSE_FALLOCATE: Final = 43
FUSE_READDIRPLUS: Final = 44
FUSE_LSEEK: Final = 46
FUSE_COPY_FILE_RANGE: Final = 47

FUSE_NOTIFY_POLL: Final = 1
FUSE_NOTIFY_INVAL_INODE: Final = 2
FUSE_NOTIFY_STORE: Final = 4

FUSE_SPLICE_WRITE: Final = 1 << 7
FUSE_SPLICE_MOVE: Final = 1 << 8
FUSE_SPLICE_READ: Final = 1 << 9
FUSE_MAX_PAGES: Final = 1 << 22

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5

FUSE_POLL_SCHEDULE_NOTIFY: Final = 1 << 0
FUSE_READ_LOCKOWNER: Final = 1 << 1  # not set in a READ that fills the page cache

# len opcode unique nodeid uid gid pid total_extlen padding
fuse_in_header: Final = struct.Struct("<IIQQIIIHH")
# len error unique
fuse_out_header: Final = struct.Struct("<IiQ")

# Bodies of requests. They begin at BODY, below.
fuse_open_in: Final = struct.Struct("<II")  # flags open_flags
fuse_read_in: Final = struct.Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
fuse_write_in: Final = fuse_read_in  # the same fields, but write_flags instead of read_flags; the data follow
fuse_interrupt_in: Final = struct.Struct("<Q")  # unique of the interrupted request
fuse_ioctl_in: Final = struct.Struct("<QIIQII")  # fh flags cmd arg in_size out_size; the argument follows
fuse_lseek_in: Final = struct.Struct("<QQII")  # fh offset whence padding
fuse_poll_in: Final = struct.Struct("<QQII")  # fh kh flags events
fuse_init_in: Final = struct.Struct("<IIII")  # major minor max_readahead flags; more fields since FUSE 7.36
fuse_release_in: Final = struct.Struct("<QIIQ")  # fh flags release_flags lock_owner
fuse_fh: Final = struct.Struct("<Q")  # the body of every request on an open file begins with its fh

# ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags
_FUSE_ATTR: Final = "QQQQQQIIIIIIIIII"
# nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec attr
fuse_entry_out: Final = struct.Struct("<QQQQII" + _FUSE_ATTR)
fuse_attr_out: Final = struct.Struct("<QII" + _FUSE_ATTR)  # attr_valid attr_valid_nsec dummy attr
fuse_dirent: Final = struct.Struct("<QQII")  # ino off namelen type; the name follows, padded to 8 bytes
fuse_open_out: Final = struct.Struct("<QII")  # fh open_flags padding
fuse_write_out: Final = struct.Struct("<II")  # size padding
fuse_ioctl_out: Final = struct.Struct("<iIII")  # result flags in_iovs out_iovs
fuse_lseek_out: Final = struct.Struct("<Q")  # offset
fuse_poll_out: Final = struct.Struct("<II")  # revents padding
fuse_notify_poll_wakeup_out: Final = struct.Struct("<Q")  # kh
fuse_notify_inval_inode_out: Final = struct.Struct("<Qqq")  # ino off len
fuse_notify_store_out: Final = struct.Struct("<QQII")  # nodeid offset size padding
# major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages
fuse_init_out: Final = struct.Struct("<IIIIHHIIH")

BODY: Final = fuse_in_header.size
DATA: Final = BODY + fuse_write_in.size  # where the data of a WRITE begin
REPLY: Final = fuse_out_header.size  # where the body of an answer begins

# The fields of fuse_in_header and fuse_read_in that the channel's loop needs, in one unpack:
# opcode unique uid pid fh offset size read_flags flags
request_head: Final = struct.Struct("<4xIQ8xI4xI4xQQII8xI4x")
# fuse_out_header and fuse_write_out in one pack: len error unique size padding
written_reply: Final = struct.Struct("<IiQII")

MAX_WRITE: Final = 1 << 20  # maximum bytes of data in one WRITE: 256 pages, the kernel's limit for max_pages
PAGES: Final = MAX_WRITE // 4096
LONGEST_REQUEST: Final = MAX_WRITE + 8192
