"""/dev/fuse: mounting, the protocol, and the two planes that answer requests.

Modules:

    mount           gets a mounted /dev/fuse, and unmounts
    mounttable      /proc/self/mountinfo
    protocol        the messages (linux/fuse.h)
    channel         reads requests, answers those of device files, passes the others on
    answers         writes answers and notifications
    parked          reads, writes and polls that wait
    split_calls     writes that the kernel has cut into pieces
    libfuse_pair    the socket pair to the slow plane
    names           the slow plane: names, attributes and text files, with pyfuse3
    inodes_handles  inode and handle numbers
"""
