"""virtfs: Ethernet interfaces as files.

    host kernel ── tap3 ══════ wire ══════ virt3 ── files under /mnt/virt/virt3 ── your program

Folders, from the bottom up. Each imports only those above it in this list; tests/test_layers.py checks that.

    core/      pure: grammar, queues, numbers, states. Standard library only, no system call
    host/      the kernel's interfaces, one module each: taps, links (with pyroute2), namespaces
    forward/   trio tasks that carry frames between a tap and its virt
    files/     one small class for each kind of file, with methods named after the system calls
    fuse/      one /dev/fuse, two planes. protocol: the structs. mount: getting and closing the descriptor.
               channel: device files, answered at once. names: everything else, the only user of pyfuse3
    daemon/    owns the interfaces, carries out commands, undoes those that fail
    cli/       the commands `virtfs …` and `mount.virtfs`

The docstring of each folder lists its modules; doc/design.md gives the reasons.
"""

__version__ = "0.1.0"
