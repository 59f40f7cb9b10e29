#!/usr/bin/env bash
# Show the frames of an interface live, as tshark prints them, until Ctrl-C. Needs only the right to read the file.
#
#     echo ensure 3 up inet 10.0.3.1/24 >/mnt/virt/ctl
#     examples/capture.sh /mnt/virt/virt3                         ($VIRTFS/virt3 in virtfs shell)
#     ping -c 3 10.0.3.2                                          (in another terminal)
#     examples/capture.sh /mnt/virt -Y arp                        (all interfaces; other arguments go to tshark)
#
# Each line begins with the interface and the direction: > towards virt, < from virt.
set -euo pipefail
[ $# != 0 ] || { echo "usage: capture.sh DIRECTORY [OPTION ...] (of an interface or a mount)" >&2; exit 2; }
dir=$1

columns='"virt","%Cus:frame.interface_name","way","%Cus:frame.packet_flags_direction","from","%s","to","%d"'
columns+=',"protocol","%p","bytes","%L","info","%i"'
tshark -l -n -r "$dir/pcap" -o "gui.column.format:$columns" "${@:2}" 2> >(grep -v "Running as user" >&2) |
    sed -u 's/ Inbound / > /; s/ Outbound / < /'
