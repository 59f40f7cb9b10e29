"""Messages to systemd about the state of a service with Type=notify (sd_notify(3))."""

import os
import socket
from contextlib import suppress


def notify(*assignments: str) -> None:
    """Send assignments such as READY=1 to the service manager, if it started this process and expects them."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path  # an abstract socket, unix(7)
    message = "\n".join(line.replace("\n", " ") for line in assignments)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.sendto(message.encode(errors="backslashreplace"), address)


def not_the_service() -> None:
    """Disable notify(), because this process is not the main process of the service."""
    os.environ.pop("NOTIFY_SOCKET", None)
