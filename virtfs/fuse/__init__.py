"""/dev/fuse: mounting, the protocol, and the two planes that answer requests.

One plane is `channel`. It answers the requests that programs make often, without libfuse. The other plane is `names`,
the slow plane. It answers all other requests with libfuse. The table in `answerers` assigns requests to planes.

Modules:

    mount           mounts and unmounts with fusermount3
    mounttable      reads /proc/self/mountinfo
    hanging         calls that hang if a server is stopped
    protocol        the layout of the messages (linux/fuse.h)
    channel         reads requests, answers READ and WRITE of device files
    idle            sleeps while no other task has anything to do
    loops           chooses between the compiled loop (plainloop.pyx) and the one in Python
    answerers       the table of functions that answer requests
    request         one request
    turns           chooses the next request if there are several users
    devices         all other requests on device files
    offsets         requests at an offset of a file with fixed content
    texts           requests on text files
    lookups         names and attributes
    attributes      the attributes of nodes as stat(2) shows them
    lasting         files whose attributes the kernel may still have
    removed         directories that have just been removed, whose names the kernel may still have
    directories     open directories
    later           answers requests that wait, and writes to texts, in tasks of their own
    text_pollers    wakes the pollers of texts
    answers         writes answers and notifications
    trace           logs requests and answers, for -o debug
    signals         decides which signals end the call of a program
    parked          reads, writes and polls that wait
    split_calls     reassembles writes that the kernel has split
    libfuse_pair    the socket pair to the slow plane
    interrupts      cancels changes in the slow plane
    names           the slow plane, with pyfuse3: changes of attributes, and rare requests
    inodes_handles  inode and handle numbers
"""
