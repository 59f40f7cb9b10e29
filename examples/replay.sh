#!/usr/bin/env bash
# Send a recording (pcap or pcapng) through an interface, with the recorded distances between frames.
#
#     tcpdump -i eth0 -c 100 -w /tmp/some.pcap
#     examples/replay.sh /tmp/some.pcap /mnt/virt/virt3           (at the recorded speed; $VIRTFS/virt3 in virtfs shell)
#     examples/replay.sh /tmp/some.pcap /mnt/virt/virt3 10        (ten times as fast; 0 is as fast as possible)
#
# `echo 2 >/mnt/virt/virt3/pace` changes the speed during the replay. Ctrl-C ends the replay between two frames.
set -euo pipefail
[ $# = 2 ] || [ $# = 3 ] || { echo "usage: replay.sh FILE DIRECTORY [PACE] (the directory of an interface)" >&2; exit 2; }
file=$1 virt=$2

# Before anything is written: only a refused write sets last_error.
[ -r "$file" ] && [ ! -d "$file" ] || { echo "replay.sh: cannot read $file" >&2; exit 1; }
[ -w "$virt/inject" ] || { echo "replay.sh: cannot write to $virt/inject" >&2; exit 1; }
why() {
    cat "$virt/../last_error" >&2
    exit 1
}

count() { cat "$virt/stats/tx_$1"; }
pace=$(cat "$virt/pace") sent=$(count frames) dropped=$(count dropped) oversize=$(count oversize)
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    echo "$pace" >"$virt/pace"
    echo "$(($(count frames) - sent)) frames sent"
    dropped=$(($(count dropped) - dropped))
    [ $dropped = 0 ] || echo "$dropped frames dropped, $(($(count oversize) - oversize)) of them too long for the mtu" >&2
}

echo "${3:-1}" >"$virt/pace" || why
trap end EXIT
trap 'exit 130' INT TERM
# fsync finds out that the file is truncated. Without it, the missing rest could still follow.
dd if="$file" of="$virt/inject" bs=1M conv=fsync status=none || why
