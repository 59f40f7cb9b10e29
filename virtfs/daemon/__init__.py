"""The daemon: owns the interfaces, carries out commands, follows the kernel, serves until the end."""
