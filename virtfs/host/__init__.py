"""The kernel's doors, one module each. Nothing in here waits for frames, and nothing in here is async.

    descriptors  how many there are, and who may use the last
    threads      a thread for one call
    device       what a tap offers, as a protocol: the real one and the fake keep the same contract
    tap          /dev/net/tun: the descriptor that is the far end of a tap
    netlink_parts  pyroute2's messages without the rest of pyroute2
    rtnl         one question to rtnetlink and its answer
    link         what the kernel tells of an interface, as values
    links        the host's end of a tap: up, mtu, MAC, addresses
    monitor      rtnetlink's news: what others did to the taps
    netns        running something inside another network namespace
    nsid         the number our namespace knows another by
    fakes        a tap made of a socket pair, for tests

pyroute2, ctypes and ioctl(2) are known in here only.
"""

from virtfs.host.netlink_parts import install

install()  # before any module here imports pyroute2
