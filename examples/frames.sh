#!/usr/bin/env bash
# Whose address is that? An ARP request, written with printf, and its answer, taken apart with read: no other program.
#
#     echo create 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
#     examples/frames.sh /mnt/virt/virt3 10.0.3.1 10.0.3.2
#
# asks for 10.0.3.1 as 10.0.3.2. The file hex gives and takes each frame as a line of hex digits; blanks mean nothing.
# Where nobody may answer: timeout 5 examples/frames.sh … (read's own -t is for terminals and pipes alone, says bash).
set -euo pipefail
virt=${1:?usage: frames.sh .../virtN ADDRESS OWN-ADDRESS} asked=${2:?which address?} own=${3:?as which address?}

in_hex() { printf %02x ${1//./ }; }
exec 3<>"$virt/hex"
read -r mac <"$virt/address"
mac=${mac//:/}

# to all, from us, ARP: Ethernet, IPv4, 6 and 4 bytes long, a request; we are, we ask for (RFC 826)
printf '%s %s 0806  0001 0800 06 04 0001  %s %s  %s %s\n' \
    ffffffffffff "$mac" "$mac" "$(in_hex "$own")" 000000000000 "$(in_hex "$asked")" >&3

while read -r frame <&3; do
    [ "${frame:24:4} ${frame:40:4} ${frame:56:8}" = "0806 0002 $(in_hex "$asked")" ] || continue
    answer=${frame:44:12}
    echo "$asked is at ${answer:0:2}:${answer:2:2}:${answer:4:2}:${answer:6:2}:${answer:8:2}:${answer:10:2}"
    exit
done
