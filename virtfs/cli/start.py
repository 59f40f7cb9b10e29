"""The entry points of the programs `virtfs` and `mount.virtfs`.

Importing the commands takes 0.1 s and more. Python's handler for SIGINT would end an import with a traceback, so Ctrl-C
ends the process until main() is ready for KeyboardInterrupt (signals.interruptible).
"""

import signal


def virtfs() -> int:
    """Run `virtfs`, and return its exit status."""
    _end_at_interrupts()
    from virtfs.cli.main import main

    return main()


def mount_virtfs() -> int:
    """Run `mount.virtfs`, and return its exit status."""
    _end_at_interrupts()
    from virtfs.cli.helper import main

    return main()


def _end_at_interrupts() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the caller ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
