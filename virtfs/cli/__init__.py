"""The command line: `virtfs mount`, `virtfs umount`, `virtfs shell`, and mount.virtfs for mount(8).

Modules:

    main        the command line of virtfs
    helper      mount.virtfs
    mount       virtfs mount
    remount     mount -o remount
    umount      virtfs umount
    serving     one mount from its first moment to its last
    background  a server in a session of its own
    options     the options after -o
    logs        where a server logs
    signals     signals that the caller ignores or blocks
    shell       virtfs shell
    shell_init  process 1 of virtfs shell
    shell_run   a private /run for virtfs shell
    usermap     the users of its user namespace
"""
