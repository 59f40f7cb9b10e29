"""trio tasks that move frames between the taps and the files.

Modules:

    wire              between a tap and its virt: frames towards virt, and their readers
    wire_out          frames from virt into the tap
    frame_runs        packets of one length, prepared for writing
    impaired_path     one impaired direction, driven by a task and a timer
    wire_impairments  the impairments of a wire
    cable             carries all frames of one virt to another, and back
    recorder          shows passing frames to captures and the history
    merge             frames of several recorders, in timestamp order
    feed              fills the FIFO rx
    tasks             restarts failed tasks, runs calls in threads
"""
