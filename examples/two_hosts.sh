#!/usr/bin/env bash
# Two hosts, each with a virtfs of its own, share one Ethernet. Three ways to join them:
#
#     sudo examples/two_hosts.sh vxlan      a bridge on each host, with a VXLAN port
#     sudo examples/two_hosts.sh cable      a cable over TCP
#     sudo examples/two_hosts.sh stream     two socat processes between `stream` and TCP
#
#     east: virt3 ══ tap3 10.0.3.1      192.0.2.1 ── veth ── 192.0.2.2      10.0.3.2 tap3 ══ virt3 :west
#
# The hosts are network namespaces. For real hosts, type the same lines on each, with its own addresses. `virtfs` must be
# in the PATH or in this checkout's .venv. Without root: virtfs shell examples/two_hosts.sh cable
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:$here/../.venv/bin:/usr/sbin:/sbin
way=${1:-}
case $way in
vxlan | cable | stream) ;;
*) echo "usage: two_hosts.sh vxlan|cable|stream" >&2; exit 2 ;;
esac

[ "$(id -u)" = 0 ] || { echo "two_hosts.sh: only root may do this: use \`virtfs shell $0 $way\`" >&2; exit 1; }

# Run again in new namespaces. When this shell ends, the kernel ends all programs, and removes interfaces and mounts.
if [ -z "${TWO_HOSTS_INSIDE:-}" ]; then
    export TWO_HOSTS_INSIDE=1
    exec unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0" "$@"
fi
trap 'exit 130' INT
trap 'exit 143' TERM
mount -t tmpfs two_hosts /run

for host in east west; do
    ip netns add $host
    mkdir /run/$host
    nsenter --net=/run/netns/$host virtfs mount /run/$host
done
ip link add eth0 netns east type veth peer name eth0 netns west
ip -n east address add 192.0.2.1/24 dev eth0
ip -n west address add 192.0.2.2/24 dev eth0
ip -n east link set eth0 up
ip -n west link set eth0 up

# Write a command to a host's ctl.
ctl() { echo "${*:2}" >"/run/$1/ctl" || { cat "/run/$1/last_error" >&2; exit 1; }; }

case $way in
vxlan)
    # VXLAN adds 50 bytes to each packet, so 1450 are left. The host's address is on the bridge.
    ip -n east link add vxlan7 up mtu 1450 type vxlan id 7 dstport 4789 remote 192.0.2.2
    ip -n west link add vxlan7 up mtu 1450 type vxlan id 7 dstport 4789 remote 192.0.2.1
    for host in east west; do ctl $host create 3 up mtu 1450; done
    ctl east create bridge0 up inet 10.0.3.1/24 add vxlan7 add virt3
    ctl west create bridge0 up inet 10.0.3.2/24 add vxlan7 add virt3
    # A program on west's frame file is 10.0.3.4.
    python3 "$here/responder.py" /run/west/virt3 10.0.3.4 &
    cat /run/west/virt3/wait/reader >/dev/null
    ;;
cable)
    ctl east create 3 up inet 10.0.3.1/24
    ctl west create 3 up inet 10.0.3.2/24
    ctl west cable 3 tcp-listen:7777
    ctl east cable 3 tcp:192.0.2.2:7777
    ;;
stream)
    ctl east create 3 up inet 10.0.3.1/24
    ctl west create 3 up inet 10.0.3.2/24
    nsenter --net=/run/netns/west socat -b65536 TCP-LISTEN:7777,reuseaddr OPEN:/run/west/virt3/stream &
    nsenter --net=/run/netns/east socat -b65536 OPEN:/run/east/virt3/stream TCP:192.0.2.2:7777,retry=50,interval=0.1 &
    cat /run/east/virt3/wait/reader /run/west/virt3/wait/reader >/dev/null
    ;;
esac

for address in 10.0.3.2 $([ "$way" != vxlan ] || echo 10.0.3.4); do
    nsenter --net=/run/netns/east ping -q -c3 -i0.2 -w10 "$address" >/dev/null
    echo "east reaches $address by $way"
done
