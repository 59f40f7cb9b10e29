"""The command line: `virtfs mount`, `virtfs umount`, `virtfs shell`, and mount.virtfs for mount(8)."""
