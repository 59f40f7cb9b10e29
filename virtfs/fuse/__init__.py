"""/dev/fuse: mounting, the protocol, and the two planes that answer requests.

One plane is `channel`, which answers requests on open device files itself. The other is the slow plane, `names`, which
answers nearly all other requests.

Modules:

    mount           mounts and unmounts with fusermount3
    mounttable      reads /proc/self/mountinfo
    hanging         calls that hang if a server is stopped
    protocol        the layout of the messages (linux/fuse.h)
    channel         reads requests, answers those on device files, forwards the others
    turns           chooses the next request if there are several users
    later           opens that wait and writes to texts, in tasks of their own
    offsets         requests at an offset of a file with fixed content
    text_pollers    wakes the pollers of texts
    answers         writes answers and notifications
    trace           logs requests and answers, for -o debug
    signals         which signals of a caller end its call
    parked          reads, writes and polls that wait
    split_calls     reassembles writes that the kernel has split
    libfuse_pair    the socket pair to the slow plane
    interrupts      cancels changes in the slow plane
    names           the slow plane: names, attributes and text files, with pyfuse3
    inodes_handles  inode and handle numbers
"""
