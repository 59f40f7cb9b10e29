"""The state, languages and formats of virtfs, without I/O: standard library only, no system call.

Interfaces:

    virt                  an interface: settings, state, counters
    counters              the counters of impairments and cables
    virt_steps            the verbs that restore an earlier state of an interface
    values                the contents of attribute files, and the verbs that recreate an interface
    bridge                a bridge, and the verbs that bring it from one state to another
    leftover              decides which settings of a leftover interface or bridge to reset
    bridgeplan            checks a line of bridge verbs before any of them takes effect
    events                the events that the file `events` reports
    ratelimit             limits how often events of one kind are logged
    limits                the limits of a mount
    loan                  the messages for borrowing a tap
    memory                accounts for the memory that clients hold

The language of ctl:

    script                splits the writes to ctl into lines
    line_words            splits a line into words
    grammar               parses lines into commands
    nearest               the known word that an unknown one is like
    unknown_words         what a wrong word in a line probably meant
    line_text             formats commands as lines
    help_text             the text of the file help
    verbs                 the tables of commands and verbs
    arguments             the kinds of arguments, each with its parser and formatter
    socketname            the names of sockets at the far end of cables
    quantities            parses and formats numbers, sizes, rates and times
    quoting               shows text from outside: escapes what a terminal would interpret
    bytestext             names as bytes and as text
    errors                VirtError, an errno with a message
    warning_text          the warnings of a line, as one line

Frames:

    ethernet              MAC addresses, and bounds on the frame length
    fair_share            divides the time of a server among its users
    framequeue            a queue of frames waiting for a reader
    offload               fills in checksums and cuts large TCP segments
    hexlines              frames as lines of hexadecimal text
    framestream           frames in a byte stream, each preceded by its length

Impairments and timing:

    impairment            an impairment as a value
    impairment_text       parses and formats impairments, in the words of tc-netem(8)
    impairment_scheduler  decides what happens to a frame, and when
    pace                  the times at which frames of a recording are sent

Capture files:

    pcapng                writes pcapng
    pcapng_sieve          removes frames from a pcapng stream
    tpacket               converts a packet socket's ring to pcapng
    savefile              decodes a capture file that arrives in pieces
    savefile_records      what the decoders of both formats share
    savefile_pcap         decodes pcap
    savefile_pcapng       decodes pcapng

Reports:

    ifconfig              interfaces in the layout of NetBSD's ifconfig(8)
    brconfig              bridges in the layout of NetBSD's brconfig(8)
    status                the file status.json
    topology              the file topology
    stats                 the file stats

Compiled modules, which are optional:

    compiled              finds the functions of compiled modules

plainrecords.pyx finds the frames of most records in a capture file, and ringblock.pyx converts a ring to pcapng.

Small types:

    ids                   units, uids, gids, bridge names
    ip                    types for IP addresses
"""
