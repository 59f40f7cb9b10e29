"""QEMU's firmware boots by DHCP and TFTP from dnsmasq on the tap. `make boot` runs these tests.

Each boot takes 10 s of processor time without KVM, so `make test` runs only its beginning (test_works_with.py). The
owner of the interface starts QEMU, without root.
"""

import pytest
from harness.serving import Mount
from harness.waiting import until

from docs.test_works_with import AS_DAEMON, start, with_virtfs

_QEMU = "qemu-system-x86_64 -m 64 -accel kvm -accel tcg -device virtio-net,netdev=n -nographic -boot n"
_BOUND = "-netdev tap,id=n,ifname=tap3,script=no,downscript=no"
_LINES = {
    "frame": f"{AS_DAEMON} {_QEMU} -netdev tap,id=n,fd=3 3<>/mnt/virt/virt3/frame",
    "exec": f"virtfs exec 3 -- {_QEMU} -netdev tap,id=n,fd=3",
    "exec --vnet-hdr": f"virtfs exec 3 --vnet-hdr -- {_QEMU} -netdev tap,id=n,fd=3",
    "exec --tun": f"virtfs exec 3 --tun -- {_QEMU} {_BOUND}",
    "bind": "unshare --mount sh -c 'mount --bind /mnt/virt/virt3/frame /dev/net/tun"
    f" && exec {AS_DAEMON} {_QEMU} {_BOUND}'",
}
_SERVER = (
    "dnsmasq -d --port=0 --interface=tap3 --bind-dynamic --dhcp-range=10.0.3.100,10.0.3.200 --no-ping"
    " --enable-tftp --tftp-root=/mnt/tftp --dhcp-boot=boot.ipxe 2>/mnt/served"
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", _LINES)
def test_boot(mount: Mount, way: str) -> None:
    mount.sh("echo create 3 up inet 10.0.3.1/24 owner daemon >ctl; mount -t tmpfs tmpfs /var/lib/misc")
    mount.sh("mkdir -p /mnt/tftp; printf '#!ipxe\necho booted\n' >/mnt/tftp/boot.ipxe; : >/mnt/screen")
    start(mount, _SERVER)
    until(lambda: "sockets bound" in mount.sh("cat /mnt/served || true"), "dnsmasq serves")
    start(mount, f"{with_virtfs(mount, _LINES[way])} >/mnt/screen 2>&1")
    until(lambda: "sent /mnt/tftp/boot.ipxe" in mount.sh("cat /mnt/served"), "the file is sent", 120)
    until(lambda: "booted" in mount.sh("cat /mnt/screen"), "the script runs", 60)
    mount.end_programs()
    until(lambda: " fd " not in mount.read("virt3/clients"), "the tap is back")
    mount.sh("umount /var/lib/misc")
