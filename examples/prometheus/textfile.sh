#!/bin/sh
# Writes the metrics of a mount to a file in a directory that the Prometheus node exporter reads
# (--collector.textfile.directory). If the mount does not answer, the file is removed; if there is no mount, the script
# fails as well. virtfs-metrics@.timer runs this every minute; without systemd, cron can.
#
#   examples/prometheus/textfile.sh /mnt/virt /var/lib/prometheus/node-exporter    # writes virtfs-mnt-virt.prom there
mount=${1:-/mnt/virt} directory=${2:-/var/lib/prometheus/node-exporter}
if [ ! -d "$directory" ]; then
    echo "virtfs: there is no directory $directory; which one does the node exporter read?" >&2
    exit 1
fi
# As systemd-escape --path does, so that no two mounts have the same file.
name=$(printf %s "$mount" | sed 's,^/*,,; s,/*$,,; s,-,\\x2d,g; s,//*,-,g')
file=$directory/virtfs-$name.prom
# The time limit is for a server that is stopped.
if metrics=$(timeout 5 cat "$mount/metrics" 2>/dev/null); then
    umask 022 # the exporter is not root
    # The exporter reads only names that end with .prom, so it never sees half a file. noclobber follows no link, which
    # another owner of the directory could have put there.
    rm -f "$file.new"
    set -o noclobber
    printf '%s\n' "$metrics" >"$file.new" && mv "$file.new" "$file" && exit
    rm -f "$file" "$file.new"
    exit 1
fi
rm -f "$file"
# A server that has ended without umount, or is stopped, is still in the mount table; VirtfsGone reports it. Otherwise the
# directory is probably mistyped. readlink fails for the mount of a server that has ended.
directory=$(timeout 5 readlink -f -- "$mount") || directory=$(printf %s "$mount" | sed 's,//*$,,')
shown=$(printf %s "$directory" | sed 's,\\,\\134,g; s, ,\\040,g') # as in proc_pid_mountinfo(5)
if ! grep -F ' - fuse.virtfs ' /proc/self/mountinfo | cut -d' ' -f5 | grep -qxF -e "$shown"; then
    echo "virtfs: there is no virtfs at $mount" >&2
    exit 1
fi
