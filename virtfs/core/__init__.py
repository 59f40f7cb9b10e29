"""The state, languages and formats of virtfs, without I/O: standard library only, no system call.

Interfaces:

    virt                  an interface: settings, state, counters
    virt_steps            the verbs that undo a failed line
    values                attribute files, and the verbs that rebuild an interface
    bridge                a bridge, and the verbs between two of its states
    bridgeplan            checks a line of bridge verbs before any takes effect
    events                the events of the file events
    limits                the maxima of a mount

The language of ctl:

    script                writes to ctl, cut into lines
    line_words            a line, word by word
    grammar               lines to commands and back
    verbs                 the tables of commands and verbs
    arguments             the kinds of arguments
    quantities            numbers, sizes, rates, times as text
    quoting               a user's text in an error sentence
    errors                VirtError: errno and sentence

Frames:

    ethernet              MAC addresses, bounds on the length
    framequeue            frames waiting for a reader
    offload               checksums and TCP segments that the kernel left undone
    hexlines              frames as lines of text

Impairments and timing:

    impairment            an impairment as a value
    impairment_text       in the words of tc-netem(8)
    impairment_scheduler  what happens to a frame, and when
    pace                  when frames of a recording are due

Capture files:

    pcapng                writes pcapng
    tpacket               a packet socket's ring to pcapng
    savefile              decodes pcap and pcapng from pieces
    savefile_records      records, and checks of both formats
    savefile_pcap         decodes pcap
    savefile_pcapng       decodes pcapng

Reports:

    ifconfig              in the layout of NetBSD's ifconfig(8)
    brconfig              in the layout of NetBSD's brconfig(8)
    status                status.json

Small types:

    ids                   units, uids, gids, bridge names
    ip                    IP addresses
"""
