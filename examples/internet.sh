#!/usr/bin/env bash
# A program on a frame file reaches a server in another network, through a bridge and a router with NAT.
#
#     sudo virtfs mount /mnt/virt
#     sudo examples/internet.sh /mnt/virt       (or VIRTFS=/mnt/virt examples/internet.sh)
#
#     fetch.py ── virt ══ tap ── br0 ─ router ─ tap ══ virt ══ cable ══ virt ══ tap ── web server
#     10.0.7.2                 10.0.7.1  192.0.2.254                          192.0.2.1
#
# The router is a separate namespace, so this machine's configuration does not change. The server has no route to
# 10.0.7.2: nftables (or iptables) hides it behind the router's address. Without both, the server gets a route.
# Cleans up on exit, also after Ctrl-C.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
virtfs=${1:-${VIRTFS:-/mnt/virt}}
inside= # what to do in a virtfs shell, which has a mount of its own
[ ! -w "${VIRTFS-}/ctl" ] || inside=": it is not the mount of this shell: leave it out"
[ -e "$virtfs/ctl" ] || { echo "internet.sh: no virtfs at $virtfs${inside:- (virtfs mount $virtfs)}" >&2; exit 1; }
[ -w "$virtfs/ctl" ] || { echo "internet.sh: only root may write $virtfs/ctl${inside:-: use \`virtfs shell $0\`}" >&2; exit 1; }
[ -z "$inside" ] || [ "$virtfs" -ef "$VIRTFS" ] || echo "internet.sh: $virtfs$inside" >&2
PATH=$PATH:/usr/sbin:/sbin

virts=() spaces=() web= site=$(mktemp -d)
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    [ -z "$web" ] || kill "$web" 2>/dev/null || true
    for n in "${virts[@]}"; do echo "destroy $n" >"$virtfs/ctl"; done
    for space in "${spaces[@]}"; do ip netns del "$space"; done
    rm -r "$site"
}
trap end EXIT
trap 'exit 130' INT TERM

# Create virt$n, the first free one, with these verbs.
create() {
    for n in {0..99}; do
        [ ! -e "$virtfs/virt$n" ] || continue
        if echo "create $n $*" >"$virtfs/ctl"; then virts+=("$n"); return; fi
    done 2>/dev/null
    echo "internet.sh: $(cat "$virtfs/last_error")" >&2
    exit 1
}

router=router-$$ server=server-$$
for space in "$router" "$server"; do
    ip netns add "$space"
    spaces+=("$space")
done

# The program's Ethernet: a bridge in the router.
ip -n "$router" link add br0 type bridge
ip -n "$router" addr add 10.0.7.1/24 dev br0
ip -n "$router" link set br0 up
create up netns "$router"
echo bridge br0 >"$virtfs/virt$n/ctl"
program=$virtfs/virt$n

# The line from the router to the server.
create up inet 192.0.2.254/24 netns "$router"; near=$n
create up inet 192.0.2.1/24 netns "$server"; far=$n
echo "cable $near $far" >"$virtfs/ctl"

ip netns exec "$router" sysctl -qw net.ipv4.ip_forward=1
if command -v nft >/dev/null; then
    ip netns exec "$router" nft -f - <<EOT
table ip nat {
    chain out {
        type nat hook postrouting priority 100
        oifname "tap$near" masquerade
    }
}
EOT
elif command -v iptables >/dev/null; then
    ip netns exec "$router" iptables -t nat -A POSTROUTING -o "tap$near" -j MASQUERADE
else
    ip -n "$server" route add 10.0.7.0/24 via 192.0.2.254
fi

ip -n "$server" link set lo up
echo "hello from the other side" >"$site/index.html"
ip netns exec "$server" python3 -m http.server --directory "$site" --bind 192.0.2.1 80 2>"$site/log" >/dev/null & web=$!
until ip netns exec "$server" bash -c '>/dev/tcp/192.0.2.1/80' 2>/dev/null; do sleep 0.05; done

python3 "$here/fetch.py" "$program" 10.0.7.2 10.0.7.1 192.0.2.1
echo "the server was asked by $(sed -n '/GET/s/ .*//p' "$site/log" | tail -n 1)"
