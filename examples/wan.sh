#!/usr/bin/env bash
# A long line between two network namespaces: a cable that takes 20 ms in each direction and loses 1 % of the frames.
# ping and iperf3 show the effect.
#
#     sudo virtfs mount /mnt/virt
#     sudo examples/wan.sh /mnt/virt            (or VIRTFS=/mnt/virt examples/wan.sh)
#     sudo examples/wan.sh /mnt/virt delay 5ms rate 10mbit
#
# Words after the directory, as in tc-netem(8), replace this impairment. Cleans up on exit, also after Ctrl-C.
set -euo pipefail
virtfs=${1:-${VIRTFS:-/mnt/virt}}
inside= # what to do in a virtfs shell, which has a mount of its own
[ ! -w "${VIRTFS-}/ctl" ] || inside=": it is not the mount of this shell: leave it out"
[ -e "$virtfs/ctl" ] || { echo "wan.sh: no virtfs at $virtfs${inside:- (virtfs mount $virtfs)}" >&2; exit 1; }
[ -w "$virtfs/ctl" ] || { echo "wan.sh: only root may write $virtfs/ctl${inside:-: use \`virtfs shell $0\`}" >&2; exit 1; }
[ -z "$inside" ] || [ "$virtfs" -ef "$VIRTFS" ] || echo "wan.sh: $virtfs$inside" >&2
impairment=${*:2}
impairment=${impairment:-delay 20ms loss 1%}

virts=() spaces=() server=
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    for n in "${virts[@]}"; do echo "destroy $n" >"$virtfs/ctl"; done
    for space in "${spaces[@]}"; do ip netns del "$space"; done
}
trap end EXIT
trap 'exit 130' INT TERM

# Create virt$n, the first free one.
create() {
    for n in {0..99}; do
        ! echo "create $n up" >"$virtfs/ctl" || return 0
    done 2>/dev/null
    echo "wan.sh: $(cat "$virtfs/last_error")" >&2
    exit 1
}

# An interface for each side, with its tap in that side's namespace.
for side in left right; do
    create
    virts+=("$n")
    ip netns add "$side-$$"
    spaces+=("$side-$$")
    ip link set "tap$n" netns "$side-$$"
    ip -n "$side-$$" addr add "10.0.0.${#virts[@]}/24" dev "tap$n"
    ip -n "$side-$$" link set "tap$n" up
done
echo "cable ${virts[*]} $impairment" >"$virtfs/ctl" || { cat "$virtfs/last_error" >&2; exit 1; }
grep "^cable ${virts[*]}" "$virtfs/ctl"

ip netns exec "${spaces[0]}" ping -c 5 -i 0.2 -w 10 10.0.0.2
ip netns exec "${spaces[1]}" iperf3 -s -1 >/dev/null & server=$!
until ip netns exec "${spaces[1]}" ss -Hltn 'sport = :5201' | grep -q .; do sleep 0.05; done
ip netns exec "${spaces[0]}" iperf3 -t 2 -i 0 -c 10.0.0.2
wait "$server"
server=
