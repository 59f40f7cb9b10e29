#!/usr/bin/env bash
# Two cat processes as an Ethernet cable between interfaces in two network namespaces, and a ping across it.
#
#     sudo virtfs mount /mnt/virt
#     sudo examples/cable.sh /mnt/virt          (or VIRTFS=/mnt/virt examples/cable.sh)
#
# Each cat reads one frame at a time from one interface and writes it to the other. Cleans up on exit, also after
# Ctrl-C.
set -euo pipefail
virtfs=${1:-${VIRTFS:-/mnt/virt}}
inside= # what to do in a virtfs shell, which has a mount of its own
[ ! -w "${VIRTFS-}/ctl" ] || inside=": it is not the mount of this shell: leave it out"
[ -e "$virtfs/ctl" ] || { echo "cable.sh: no virtfs at $virtfs${inside:- (virtfs mount $virtfs)}" >&2; exit 1; }
[ -w "$virtfs/ctl" ] || { echo "cable.sh: only root may write $virtfs/ctl${inside:-: use \`virtfs shell $0\`}" >&2; exit 1; }
[ -z "$inside" ] || [ "$virtfs" -ef "$VIRTFS" ] || echo "cable.sh: $virtfs$inside" >&2

virts=() spaces=() cats=()
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    [ ${#cats[@]} = 0 ] || kill "${cats[@]}" 2>/dev/null || true
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
    echo "cable.sh: $(cat "$virtfs/last_error")" >&2
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
left=$virtfs/virt${virts[0]} right=$virtfs/virt${virts[1]}
until [ "$(cat "$left/up" "$right/up")" = $'1\n1' ]; do sleep 0.01; done

cat "$left/frame" >"$right/frame" & cats+=($!)
cat "$right/frame" >"$left/frame" & cats+=($!)
cat "$left/wait/reader" "$right/wait/reader" >/dev/null # wait until both cats read

ip netns exec "${spaces[0]}" ping -c 3 -i 0.2 -w 5 10.0.0.2
