"""The daemon: owns the interfaces, carries out commands, follows the kernel, and serves until the end.

Modules:

    service          builds one mount from its parts, bottom-up, and serves it
    kernel           the netlink sockets, and the thread that uses them
    changes          notifies tasks when the text of a file has changed
    errors_by_user   the last error of each user
    userdb           names of users and groups

    interface        one interface, with everything that belongs to it
    registry         all interfaces, looked up by unit, by virt, or by the tap's namespace and index
    taps             opens, reads and restores the host's end
    lifecycle        creates and destroys interfaces
    upopen           sets the host's end up or down when frame, hex or stream is opened or closed
    drops            emits the event drop
    drop_checks      looks for frames that the kernel has dropped
    follow           applies what the kernel reports
    bridges          carries out the lines that create, change and destroy bridges
    bridge_registry  all bridges, looked up by name, and the data needed to release them
    bridge_follow    keeps the state of the bridges up to date, and notices lost ones
    bridge_calls     the blocking functions that attach to a bridge, change it and release it
    bridge_texts     the lines of all bridges in ctl
    bridge_lines     the lines of one bridge in ctl
    cables           the cables between interfaces
    socket_cables    the cables between an interface and a socket
    fifos            the FIFOs behind rx
    loans            gives taps to programs, and takes them back
    loan_sockets     the sockets behind fd

    commands         runs the lines written to ctl files
    line_runner      carries out one line
    check            reports the error that a line would cause, without running the line
    virt_checks      rejects verbs that cannot succeed, before their line runs
    virt_verbs       the effect of each verb on an interface, and how a line is undone
    bridge_verbs     the effect of each verb on a bridge, and how a line is undone
    netns_verb       the verb netns
    port_addresses   warns about addresses on bridge ports
    cable_warnings   warns about ends of a cable that do not fit each other
    bridge_warnings  warns about bridges that do not carry all frames between their ports
    rights           chmod and chown

    state            the state of a mount as text
    statefile        the file that keeps this text for the next mount
    earlier          taps and bridges that an earlier run made, or that it found on the host
    failed_lines     lines of the state file that could not be replayed
    leftovers        removes what a killed server left behind, unless the state file mentions it
    replay           recreates interfaces, bridges and cables from the state file
    diagnosis        the state of a server, for its log
    garbage          decides when Python's garbage collector runs
    steps            finds the longest steps of trio's tasks, for the server's log
    reports          the texts of the report files
"""
