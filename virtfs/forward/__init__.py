"""trio tasks that move frames between the taps and the files.

Modules:

    wire              takes frames from a tap towards its virt, for the readers
    wire_out          puts frames from virt into the tap
    frame_runs        packets of one length, prepared for writing
    impaired_path     delays, loses and changes the frames of one direction
    wire_impairments  the impairments of a wire
    cable             carries all frames of one virt to another, and back
    recorder          shows passing frames to captures and the history
    merge             puts the frames of several recorders into timestamp order
    feed              fills the FIFO rx
    tasks             restarts failed tasks, and runs blocking calls in threads
"""
