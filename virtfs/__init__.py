"""virtfs: Ethernet interfaces as files.

    host kernel ── tap3 ══════ wire ══════ virt3 ── files under /mnt/virt/virt3 ── your program

Folders, lowest layer first. Each imports only folders listed before it; tests/test_layers.py checks this.

    core/      pure: grammar, queues, numbers, states. Standard library only, no system calls
    host/      the kernel's interfaces, one module each: taps, links (with pyroute2), namespaces
    forward/   trio tasks that carry frames between a tap and its virt
    files/     one small class for each kind of file, with methods named after the system calls
    fuse/      the FUSE server. mount: mounts and unmounts. protocol: the messages of /dev/fuse.
               channel: reads the requests. answerers: who answers which. names: answers rare ones, with pyfuse3
    daemon/    owns the interfaces, carries out commands, undoes those that fail
    cli/       the commands `virtfs …` and `mount.virtfs`

The docstring of each folder lists its modules; doc/design.md gives the reasons.
"""

__version__ = "0.1.0"
