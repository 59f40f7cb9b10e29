#!/usr/bin/env bash
# A virtual machine boots from the network. Its card is a virt, and dnsmasq on the tap serves DHCP and TFTP.
#
#     sudo virtfs mount /mnt/virt
#     sudo examples/pxe.sh /mnt/virt            (or VIRTFS=/mnt/virt examples/pxe.sh)
#     virtfs shell examples/pxe.sh              (without root)
#
#     QEMU with iPXE ── virt ══ tap ── dnsmasq, 10.0.66.1
#
# Needs QEMU (Debian: qemu-system-x86 and ipxe-qemu) and dnsmasq (dnsmasq-base). dnsmasq serves a script of iPXE, which
# prints a line and ends the machine. A second argument, after the directory, selects the way to the wire:
#
#     exec     virtfs exec N -- qemu-system-x86_64 -netdev tap,fd=3 …: the tap itself, as fast as without virtfs
#     vnet     the same with --vnet-hdr, so that the kernel computes checksums and splits large packets for QEMU
#     tun      virtfs exec N --tun -- …: the same for a program that only opens /dev/net/tun
#     frame    qemu-system-x86_64 -netdev tap,fd=3 … 3<>virtN/frame: with filters, impairments and cables
#     bind     virtN/frame bind-mounted on /dev/net/tun: the same for a program that only opens /dev/net/tun
#
# Further arguments go to QEMU. Cleans up on exit, also after Ctrl-C.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:$here/../.venv/bin:/usr/sbin:/sbin
virtfs=${1:-${VIRTFS:-/mnt/virt}} way=${2:-exec}
case $way in
exec | vnet | tun | frame | bind) ;;
*) echo "usage: pxe.sh DIRECTORY exec|vnet|tun|frame|bind [OPTION OF QEMU ...]" >&2; exit 2 ;;
esac
inside= # what to do in a virtfs shell, which has a mount of its own
[ ! -w "${VIRTFS-}/ctl" ] || inside=": it is not the mount of this shell: leave it out"
[ -e "$virtfs/ctl" ] || { echo "pxe.sh: no virtfs at $virtfs${inside:- (virtfs mount $virtfs)}" >&2; exit 1; }
[ -w "$virtfs/ctl" ] || { echo "pxe.sh: only root may write $virtfs/ctl${inside:-: use \`virtfs shell $0\`}" >&2; exit 1; }
[ -z "$inside" ] || [ "$virtfs" -ef "$VIRTFS" ] || echo "pxe.sh: $virtfs$inside" >&2
for program in virtfs qemu-system-x86_64 dnsmasq; do
    command -v $program >/dev/null || { echo "pxe.sh: $program is not installed" >&2; exit 1; }
done

programs=() n= work=$(mktemp -d)
end() {
    trap '' INT TERM # a second Ctrl-C does not interrupt the clean-up
    { [ ${#programs[@]} = 0 ] || kill "${programs[@]}" || true; wait; } 2>/dev/null
    [ -z "$n" ] || echo "destroy $n" >"$virtfs/ctl"
    rm -r "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

# Create virt$n, the first free one.
for n in {0..99} ""; do
    ! echo "create $n up inet 10.0.66.1/24" >"$virtfs/ctl" || break
done 2>/dev/null
[ "$n" ] || { echo "pxe.sh: $(cat "$virtfs/last_error")" >&2; exit 1; }
virt=$virtfs/virt$n

net=tap,id=n,fd=3 named=tap,id=n,ifname=tap$n,script=no,downscript=no
case $way in
exec) with=(virtfs exec "$virt" --) ;;
vnet) with=(virtfs exec "$virt" --vnet-hdr --) ;;
tun) with=(virtfs exec "$virt" --tun --) net=$named ;;
frame) with=(sh -c 'exec "$@" 3<>"$0"' "$virt/frame") ;;
bind) with=(unshare --mount sh -c 'mount --bind "$0" /dev/net/tun && exec "$@"' "$virt/frame") net=$named ;;
esac

printf '#!ipxe\necho booted from ${next-server} as ${ip}\nsleep 1\nreboot\n' >"$work/boot.ipxe"
chmod -R a+rX "$work"
dnsmasq --no-daemon --conf-file=/dev/null --user=root --port=0 --interface="tap$n" --bind-dynamic --no-ping \
    --dhcp-range=10.0.66.100,10.0.66.200 --dhcp-leasefile="$work/leases" \
    --enable-tftp --tftp-root="$work" --dhcp-boot=boot.ipxe 2>"$work/served" & programs+=($!)
until grep -qs "sockets bound" "$work/served"; do
    kill -0 "${programs[0]}" 2>/dev/null || { cat "$work/served" >&2; exit 1; }
    sleep 0.05
done

# With -icount the machine's clock follows its instructions. This shortens the waits of the firmware, which are loops.
: >"$work/screen"
"${with[@]}" qemu-system-x86_64 -m 64 -accel tcg -icount shift=7 -nographic -boot n -no-reboot "${@:3}" \
    -device virtio-net,netdev=n -netdev "$net" </dev/null >"$work/screen" & programs+=($!)

# The screen, without control characters and empty lines.
tail -s 0.1 -fn +1 --pid "${programs[1]}" "$work/screen" |
    sed -u 's/\x1b\[[0-9;?]*[A-Za-z]//g; s/\x1bc//g; s/[^[:print:]]//g; s/  .*//; /^ *$/d' & wait $!
wait "${programs[1]}"
grep -q "^booted" "$work/screen"
