"""Blocking calls to the kernel, one subject a module. Nothing here waits for frames, and nothing is async.

Only this package uses pyroute2. Only it and fuse/mount.py use ctypes and ioctl(2).

Taps:

    tap_protocol        the interface of a tap, as a Protocol
    tap                 /dev/net/tun: the descriptor that is the far end of a tap
    fakes               a tap made of a socket pair, for tests
    features            offload features, shared with ethtool(8)
    vlantags            VLAN tags in or beside the frames
    bpf                 tcpdump's filter language, compiled by libpcap

Moving frames:

    relay               from one tap into another
    uring               many reads or writes in one system call (io_uring)
    ring                captures: a packet socket's ring
    fifo                a FIFO in packet mode
    timer               a timer with a descriptor

rtnetlink:

    rtnl                one request and its answer
    netlink_attributes  messages as raw bytes
    netlink_parts       pyroute2's messages without the rest of pyroute2
    netlink_values      interfaces and addresses as values
    links               the host's end of a tap: up, MTU, MAC, addresses
    ipconfig            addresses and routes as records that can be moved
    monitor             notifications about changes by others

Bridges:

    bridge              configures a bridge
    bridgeinfo          reads a bridge's state
    bridge_adopt        moves addresses and routes to a bridge and back
    membership          the bridge that a tap is in

Namespaces and mounts:

    netns               runs a function inside a network namespace
    netnames            namespaces by name or process
    nsid                the number of a namespace in ours
    mount_call          mount(2)

The process:

    descriptors         the limit of open files, and a reserve
    processes           the thread that made a FUSE request
    threads             a thread for one call
    libc                the C library, through ctypes
"""

from virtfs.host.netlink_parts import install

install()  # before any module here imports pyroute2
