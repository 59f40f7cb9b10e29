"""The command line: `virtfs mount`, `umount`, `shell`, `exec`, `ls` and `ctl`, and mount.virtfs for mount(8).

Modules:

    main          the command line of virtfs
    helper        mount.virtfs
    mount         virtfs mount
    remount       mount -o remount
    umount        virtfs umount
    mounts        the mounts that a user can see, and access to them that does not hang
    ls            virtfs ls
    ctl           virtfs ctl
    serving       serves one mount, from attach to detach
    background    starts a server in a session of its own
    notify        tells systemd the state of the service
    options       parses the options after -o
    logs          opens the log of a server
    log_writer    writes the log in a thread of its own
    log_sinks     the places that a log can go to
    surroundings  opens closed standard streams, and sets UTF-8 mode
    signals       resets signals that the caller ignores or blocks
    execute       virtfs exec
    shell         virtfs shell
    shell_init    process 1 of virtfs shell
    shell_run     a private /run for virtfs shell
    usermap       the id maps of a user namespace for virtfs shell
"""
