"""The files of the tree: a small class for each kind of file, with methods named after the system calls.

The tree and the basic kinds of files:

    tree      the names below the mount point
    node      directories, links, files
    text      text files: a value, a report, a script of commands
    readers   makes texts about the whole mount for their readers
    listing   an open directory
    device    files that behave like a character device
    ports     the device files of one interface, which share a wire

Files of an interface:

    frame     one read or write is one frame
    tunioctl  the ioctls of frame, for programs written for taps
    hexlines  hex: frames as text
    stream    frames as a byte stream
    capture   pcap: a live capture
    capture_blocks  the blocks that describe a capture and its interfaces
    history   the last frames as pcapng
    inject    sends the frames of a capture file
    rx        the link to a FIFO with the frames
    clients   lists the open device files and their processes
    fd        the link to the socket that gives a program the tap
    wait      wait/*: a read returns once a condition is true

Files of a mount:

    ctl       commands, one per line
    clone     creates an interface when opened
    events    one line per event
    stats     counters of all interfaces, one line each
    metrics   counters for Prometheus
    bridges   the directory of a bridge, such as bridge/bridge0/
"""
