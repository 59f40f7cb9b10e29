#!/usr/bin/env bash
# Print the frames that the host sends through an interface, one per line in hex, until Ctrl-C.
#
#     echo ensure 3 up inet 10.0.3.1/24 backlog 8 >/mnt/virt/ctl
#     examples/sniff.sh /mnt/virt/virt3/frame &  ping -c 1 10.0.3.2      ($VIRTFS/virt3/frame in virtfs shell)
#
# Each dd makes one read, which is one frame. All of them share one descriptor, so no frame is lost between two dds.
set -euo pipefail
[ $# = 1 ] || { echo "usage: sniff.sh FILE (the file frame of an interface)" >&2; exit 2; }
exec 3<"$1"

while frame=$(dd bs=65553 count=1 status=none <&3 | xxd -p -c 0) && [ "$frame" ]; do
    echo "$frame"
done
