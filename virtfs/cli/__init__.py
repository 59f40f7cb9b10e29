"""The commands: `virtfs mount`, `umount` and `shell`, and mount.virtfs for mount(8)."""
