#!/usr/bin/env bash
# Print the frames that the host sends through an interface, one per line in hex, until Ctrl-C.
#
#     echo ensure 3 up inet 10.0.3.1/24 backlog 8 >/mnt/virt/ctl
#     examples/sniff.sh /mnt/virt/virt3/frame &  ping -c 1 10.0.3.2
#
# Each dd makes one read, which is one frame. All of them share one descriptor, so no frame is lost between two dds.
set -euo pipefail
exec 3<"${1:?usage: sniff.sh .../virtN/frame}"

while frame=$(dd bs=65553 count=1 status=none <&3 | xxd -p -c 0) && [ "$frame" ]; do
    echo "$frame"
done
