"""Pure parts: standard library only, no system call."""
