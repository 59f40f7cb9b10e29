"""virtfs: Ethernet interfaces as files.

    host kernel ── tap3 ══════ wire ══════ virt3 ── files under /mnt/virt/virt3 ── your program

Where a line belongs. Imports go one way, each folder may know those above it; tests/test_layers.py holds it to that.

    core/      what can be thought without a computer: grammar, queues, numbers. Standard library, no system call
    host/      the kernel's doors, one module each: taps, links (the only pyroute2), namespaces
    forward/   trio tasks that carry frames between a tap and its virt
    files/     one small class for each kind of file; its methods are named after the system calls
    fuse/      one /dev/fuse, two planes. protocol: the structs. mount: getting and losing the descriptor.
               channel: stream files, answered on the spot. namespace: all the rest, in the only pyfuse3
    daemon/    owns the interfaces, carries out commands, takes back half-made ones
    cli/       the commands `virtfs …` and `mount.virtfs`

doc/design.md tells why it is so.
"""

__version__ = "0.1.0"
