#!/usr/bin/env bash
# A laboratory in one file of commands, lab.ctl: three machines, a bridge, and a program run by a user without root.
#
#     sudo virtfs mount /mnt/virt
#     sudo examples/lab.sh /mnt/virt            (or VIRTFS=/mnt/virt examples/lab.sh)
#
# Each machine pings the others and the program, responder.py. Cleans up on exit, also after Ctrl-C.
# In `virtfs shell`, the owner `nobody` of lab.ctl needs a range for you in /etc/subuid.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
virtfs=${1:-${VIRTFS:-/mnt/virt}}
inside= # what to do in a virtfs shell, which has a mount of its own
[ ! -w "${VIRTFS-}/ctl" ] || inside=": it is not the mount of this shell: leave it out"
[ -e "$virtfs/ctl" ] || { echo "lab.sh: no virtfs at $virtfs${inside:- (virtfs mount $virtfs)}" >&2; exit 1; }
[ -w "$virtfs/ctl" ] || { echo "lab.sh: only root may write $virtfs/ctl${inside:-: use \`virtfs shell $0\`}" >&2; exit 1; }
[ -z "$inside" ] || [ "$virtfs" -ef "$VIRTFS" ] || echo "lab.sh: $virtfs$inside" >&2

# Nothing that lab.ctl creates may exist yet, since all of it is destroyed at the end.
made=$(sed -n 's/^create \([^ ]*\).*/\1/p' "$here/lab.ctl")
for name in $made; do
    for path in "$virtfs/virt$name" "$virtfs/bridge/$name" "/sys/class/net/tap$name" "/sys/class/net/$name"; do
        [ ! -e "$path" ] || { echo "lab.sh: $path already exists; remove it first" >&2; exit 1; }
    done
done

machines=() program=
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    [ -z "$program" ] || kill "$program" 2>/dev/null || true
    for name in $made; do
        [ ! -e "$virtfs/virt$name" ] && [ ! -e "$virtfs/bridge/$name" ] || echo "destroy $name" >"$virtfs/ctl"
    done
    for machine in "${machines[@]}"; do ip netns del "$machine"; done
}
trap end EXIT
trap 'exit 130' INT TERM

for machine in lab-left lab-middle lab-right; do
    ip netns add "$machine"
    machines+=("$machine")
    ip -n "$machine" link set lo up
done
cat "$here/lab.ctl" >"$virtfs/ctl" || { cat "$virtfs/last_error" >&2; exit 1; }

owner=$(stat -c %U "$virtfs/virt84/frame")
python=$(PATH=/usr/bin:$PATH command -v python3) # the system's, which every user can run
setpriv --reuid="$owner" --clear-groups "$python" "$here/responder.py" "$virtfs/virt84" 10.0.7.84 & program=$!
timeout 10 cat "$virtfs/virt84/wait/reader" >/dev/null

for machine in "${machines[@]}"; do
    for address in 10.0.7.{1,2,3,84}; do
        said=$(ip netns exec "$machine" ping -q -c 3 -i 0.2 -w 5 "$address" | sed -n '/received/p;/^rtt/p')
        echo "$machine to $address:" $said
    done
done
echo "the bridge knows:"
cat "$virtfs/bridge/bridge7/addresses"
