#!/usr/bin/env bash
# Send a recording (pcap or pcapng) through an interface, with the recorded distances between frames.
#
#     tcpdump -i eth0 -c 100 -w /tmp/some.pcap
#     examples/replay.sh /tmp/some.pcap /mnt/virt/virt3           (at the recorded speed)
#     examples/replay.sh /tmp/some.pcap /mnt/virt/virt3 10        (ten times as fast; 0 is as fast as possible)
#
# `echo 2 >/mnt/virt/virt3/pace` changes the speed during the replay. Ctrl-C ends the replay between two frames.
set -euo pipefail
file=${1:?usage: replay.sh FILE .../virtN [PACE]} virt=${2:?usage: replay.sh FILE .../virtN [PACE]}

pace=$(cat "$virt/pace")
before=$(cat "$virt/stats/tx_frames")
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    echo "$pace" >"$virt/pace"
    echo "$(($(cat "$virt/stats/tx_frames") - before)) frames sent"
}
trap end EXIT
trap 'exit 130' INT TERM

echo "${3:-1}" >"$virt/pace"
cat "$file" >"$virt/inject" || { cat "${virt%/*}/last_error" >&2; exit 1; }
