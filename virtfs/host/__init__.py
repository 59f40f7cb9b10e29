"""Blocking calls to the kernel, one module for each subject. No function here waits for frames, and none is async.

No other package imports pyroute2 or calls ioctl(2). Outside this package only fuse/mount.py uses ctypes.

Taps:

    tap_protocol        the methods of a tap, as a Protocol
    tap                 the far end of a tap: a descriptor of /dev/net/tun
    tap_found           an interface that exists before virtfs attaches to it
    tap_absent          a tap that virtfs is not attached to
    tap_loan            restores what another process can change on a tap
    fakes               a tap made of a socket pair, for tests
    features            offload features, which ethtool(8) also controls
    vlantags            the setting that puts VLAN tags into the frames
    bpf                 tcpdump's filter language, compiled by libpcap

Moving frames:

    relay               moves packets from one tap to another
    uring               many reads or writes in one system call (io_uring)
    ring                the ring of a packet socket, for captures
    fifo                a FIFO in packet mode
    sockets             the sockets at the far end of cables
    timer               a timer that makes a descriptor readable

rtnetlink:

    rtnl                sends a request and reads the reply
    netlink_messages    messages about links and addresses, and the constants in them
    netlink_attributes  the attributes of a message
    netlink_parts       imports pyroute2's message classes, for bridges
    netlink_values      decodes interfaces and addresses
    links               the host's end of a tap: up, MTU, MAC, addresses
    ipconfig            addresses and routes as records that can be moved
    marks               marks the interfaces that virtfs made, so that a later server finds them
    monitor             notifications about changes to interfaces and addresses

Bridges:

    bridge              configures a bridge
    bridge_make         creates a bridge
    bridgeinfo          reads a bridge's state
    bridgeports         reads a bridge's ports and address table
    bridge_adopt        moves addresses and routes to a bridge and back
    bridge_leave        gives back what a bridge has adopted from members that have left it
    membership          the bridge that a tap is in
    bridge_filter       whether bridged frames pass the packet filter

Namespaces and mounts:

    netns               runs a function inside a network namespace
    netnames            namespaces by name or process
    nsid                the numbers that identify other namespaces in ours
    mount_call          mount(2)

The process:

    descriptors         the limit on open files, and a reserve below it
    epolls              finds trio's epoll descriptor
    privileges          drops the capabilities that a server does not need
    processes           looks up the thread that made a FUSE request, and lets a child end with its parent
    peers               Unix sockets, and the processes that connect to them
    holders             finds the processes that have a connection, a tap or a file open
    threads             runs one call in a thread of its own
    libc                the C library, through ctypes
    textfiles           reads and writes small text files
"""

from virtfs.host.netlink_parts import install

# This call must precede the first import of pyroute2 in this package.
install()
