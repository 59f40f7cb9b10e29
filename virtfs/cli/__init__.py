"""The command line: `virtfs mount`, `umount`, `shell`, `exec`, `ls`, `top`, `ctl`, `extcap`, and mount.virtfs.

Modules:

    start         the entry points, which end at Ctrl-C while they import
    main          the command line of virtfs
    helper        mount.virtfs
    mount         virtfs mount
    hidden        files below a mount point, which a mount hides
    unseen        mounts that no other process sees
    remount       mount -o remount
    umount        virtfs umount
    mounts        the mounts that a user can see, and access to them that does not hang
    ls            virtfs ls
    top           virtfs top
    top_view      the lines that virtfs top shows, and its keys
    sampling      samples of mounts at intervals
    terminal      curses, keys and signals
    columns       interfaces in columns of text
    rates         rates of interfaces, from samples
    plot          plots as text
    ctl           virtfs ctl
    extcap        virtfs extcap, called by Wireshark
    extcap_install          makes Wireshark call virtfs extcap
    completion    candidates for the completion of command lines
    completion_line         candidates for a line of ctl
    serving       serves one mount, from attach to detach
    background    starts a server in a session of its own
    notify        tells systemd the state of the service
    options       parses the options after -o
    logs          opens the log of a server
    log_writer    writes the log in a thread of its own
    log_sinks     the possible destinations of a log
    lacking       the rights that root of a container lacks
    denied        why the kernel denies access to a file of a mount
    surroundings  opens closed standard streams, and sets UTF-8 mode
    signals       resets signals that the caller ignores or blocks
    execute       virtfs exec
    unstarted     why a program cannot be executed
    shell         virtfs shell
    shell_init    process 1 of virtfs shell
    shell_mark    tells whether a process is inside a virtfs shell, and what to do about mounts there
    shell_join    virtfs shell --join
    shell_run     a private /run for virtfs shell
    shell_net     the Internet for virtfs shell --net
    usermap       the id maps of a user namespace for virtfs shell
"""
