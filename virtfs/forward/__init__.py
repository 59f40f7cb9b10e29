"""trio tasks that move frames between the taps and the files.

Modules:

    tapwatch          watches taps, and notifies a wire when its tap becomes readable
    wire              takes frames out of a tap, for the readers of its virt
    wire_out          puts frames from virt into the tap
    frame_runs        prepares packets of equal length for writing
    impaired_path     delays, drops and alters frames of one direction
    wire_impairments  the impairments of a wire
    cable             carries all frames between two virts, in both directions
    socket_cable      carries all frames between a virt and a socket, and reconnects
    socket_ways       the two directions of one connection of a socket cable
    recorder          delivers a copy of each passing frame to captures and the history
    merge             puts the frames of several recorders into timestamp order
    records           the frames of a wire as a byte stream
    feed              writes frames into the FIFO rx
    supervisor        starts every background task, and logs its failure
    slices            divides long work into slices, between which other tasks run
    tasks             restarts failed tasks, and runs blocking calls in threads

tapframes.pyx, an optional compiled module, moves many frames per call between a tap and memory.
"""
