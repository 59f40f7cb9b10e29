"""The Python API: a thin layer over the files of a mount, for programs that use virtfs. virtfs/__init__.py exports it.

It imports only core, so a program that uses virtfs needs neither the server's modules nor their libraries.

    mount       Mount: an existing mount, its interfaces, bridges and cables
    cable       Cable: a cable between two interfaces; its counters
    started     mount(): starts a server as a separate process, and ends it
    virt        Virt: an interface; Host: the host's end of its wire; Stats: its counters
    bridge      Bridge: a bridge
    port        Port: frames, one per call
    stream      Stream: frames, many per call
    native      Tap: the descriptor of the tap itself
    events      Events: what happens in a mount, as objects
    lines       verbs and impairments as keyword arguments
    tables      dicts by name, whose missing names have an error that names the others
    values      texts of files as int, bool, str and list
    texts       values as texts of files and lines
    folder      reads and writes files; errors have the text of last_error
    temporary   temporary folders for mounts
    device_nodes            the device nodes that a server opens, and whether a user may open them
    waiting     waits for descriptors, with a time-out
"""
