"""/dev/fuse: mounting, the protocol, and the two planes that answer requests.

One plane is `channel`, which answers requests on open device files itself. The other is the slow plane, `names`, which
answers nearly all other requests.

Modules:

    mount           mounts and unmounts with fusermount3
    mounttable      reads /proc/self/mountinfo
    protocol        the layout of the messages (linux/fuse.h)
    channel         reads requests, answers those on device files, forwards the others
    answers         writes answers and notifications
    trace           logs requests and answers, for -o debug
    parked          reads, writes and polls that wait
    split_calls     reassembles writes that the kernel has split
    libfuse_pair    the socket pair to the slow plane
    names           the slow plane: names, attributes and text files, with pyfuse3
    inodes_handles  inode and handle numbers
"""
