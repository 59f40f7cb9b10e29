"""A mount that is bind-mounted into another root directory, as for a container."""

from collections.abc import Callable

from harness.serving import Virt, frame

# As in a container, /run is a separate file system there.
_ROOT = """
mkdir /mnt/root
mount --bind / /mnt/root
mount -t tmpfs tmpfs /mnt/root/run
mount -t tmpfs tmpfs /mnt/root/mnt
mkdir /mnt/root/mnt/virt
mount --bind /mnt/virt /mnt/root/mnt/virt
"""
_RUN = """
run=$(dirname "$(readlink /mnt/virt/{name}/rx)")
mkdir -p "/mnt/root$run"
mount --bind "$run" "/mnt/root$run"
"""


def test_rx_needs_the_run_time_directory_too(virts: Callable[[str], Virt]) -> None:
    virt = virts("up backlog 4")
    mount, name = virt.mount, virt.name
    mount.sh(f"cd /; {_ROOT}")
    try:
        assert mount.sh(f"chroot /mnt/root cat /mnt/virt/{name}/mtu") == "1500\n"
        assert "No such file" in mount.refused(f"chroot /mnt/root cat /mnt/virt/{name}/rx")
        mount.sh(_RUN.format(name=name))
        virt.host_sends(frame(60, 1))
        read = f"chroot /mnt/root dd if=/mnt/virt/{name}/rx bs=4096 count=1 status=none | xxd -p -c 4096"
        assert mount.sh(read).strip() == frame(60, 1).hex()
    finally:
        mount.sh("cd /; umount --recursive /mnt/root; rmdir /mnt/root")
