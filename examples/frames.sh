#!/usr/bin/env bash
# Send an ARP request with printf and parse the answer with read. No other program is needed.
#
#     echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
#     examples/frames.sh /mnt/virt/virt3 10.0.3.1 10.0.3.2        ($VIRTFS/virt3 in virtfs shell)
#
# asks for the MAC address of 10.0.3.1, as 10.0.3.2. In the file hex each frame is a line of hex digits; blanks are
# ignored. If there may be no answer, use `timeout 5 examples/frames.sh …`: read -t of bash works only for terminals,
# pipes and the like.
set -euo pipefail
[ $# = 3 ] || { echo "usage: frames.sh DIRECTORY ADDRESS OWN-ADDRESS (the directory of an interface)" >&2; exit 2; }
virt=$1 asked=$2 own=$3

in_hex() { printf %02x ${1//./ }; }
exec 3<>"$virt/hex"
read -r mac <"$virt/address"
mac=${mac//:/}

# Ethernet: to all, from us, ARP. ARP (RFC 826): Ethernet and IPv4, lengths 6 and 4, request; sender, target
printf '%s %s 0806  0001 0800 06 04 0001  %s %s  %s %s\n' \
    ffffffffffff "$mac" "$mac" "$(in_hex "$own")" 000000000000 "$(in_hex "$asked")" >&3

while read -r frame <&3; do
    [ "${frame:24:4} ${frame:40:4} ${frame:56:8}" = "0806 0002 $(in_hex "$asked")" ] || continue
    answer=${frame:44:12}
    echo "$asked is at ${answer:0:2}:${answer:2:2}:${answer:4:2}:${answer:6:2}:${answer:8:2}:${answer:10:2}"
    exit
done
