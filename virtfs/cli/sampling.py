"""Periodic samples of mounts. A child process for each mount takes them; cli.mounts explains why."""

import json
import os
import select
import signal
import time
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from virtfs.cli.mounts import read
from virtfs.cli.rates import Object
from virtfs.cli.surroundings import sentence_of
from virtfs.fuse.hanging import STOPPED, Child, stopped_servers
from virtfs.fuse.mounttable import Mounted

_SOON = 0.25  # seconds from the first sample to the second, which gives the first rates
_LEAVE = 0.2  # seconds that a child has to exit before it is killed
_PARENTS = (signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)  # the parent may have handlers for these


class Sample(NamedTuple):
    """A sample of a mount.

    at: its time in seconds. status: the object in status.json; None if it could not be read. clients: the text of the
    file `clients` of the watched interface. error: the reason why there is no status, or "".
    """

    at: float = 0.0
    status: Object | None = None
    clients: str = ""
    error: str = ""


class Sampler:
    """Takes samples of one mount in a child process. close() must be called."""

    def __init__(self, mount: Mounted, interval: float) -> None:
        """interval: the time between two samples, in seconds. watch() sets the attribute `watched`."""
        self.mount = mount
        self._patience = interval + STOPPED
        self._heard = time.monotonic()
        self._stopped: str | None = None
        self._data = b""
        self.watched = ""
        self._samples, out = os.pipe()
        requests, self._requests = os.pipe()
        self._child = Child(partial(_run, mount.directory, interval, (requests, out), (self._samples, self._requests)))
        os.close(out)
        os.close(requests)

    def close(self) -> None:
        """End the child, even if its call on the mount hangs."""
        os.close(self._requests)
        os.close(self._samples)
        with self._child:
            self._child.ended(_LEAVE)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when take() would return without waiting."""
        return self._samples

    def watch(self, name: str) -> None:
        """Include the file `clients` of one interface in the samples. name: "virt3", or "" for none."""
        if name != self.watched:
            self.watched = name
            with suppress(BrokenPipeError):  # the child has ended; take() returns None
                os.write(self._requests, f"{name}\n".encode())

    def take(self) -> list[Sample] | None:
        """Wait for data and return the samples that are complete, or None if the child has ended."""
        data = os.read(self._samples, 1 << 20)
        if not data:
            return None
        self._heard, self._stopped = time.monotonic(), None
        *lines, self._data = (self._data + data).split(b"\n")
        return [Sample(**json.loads(line)) for line in lines]

    def silence(self) -> str:
        """Return a warning if the mount has not answered for a long time, else ""."""
        seconds = time.monotonic() - self._heard
        if seconds < self._patience:
            return ""
        if self._stopped is None:
            self._stopped = stopped_servers()  # slow, as it inspects every process
        return f"no answer for {seconds:.0f} s; is its server stopped{self._stopped and f' ({self._stopped})'}?"


def _run(directory: str, interval: float, mine: tuple[int, int], others: tuple[int, int]) -> int:
    """Take samples until the parent ends. Runs in a child.

    mine: two descriptors. The first delivers the name of the watched interface; samples are written to the second.
    others: the parent's ends of these pipes.
    """
    for number in _PARENTS:
        signal.signal(number, signal.SIG_DFL)
    for fd in others:
        os.close(fd)
    requests, samples = mine
    watched, pause = "", min(interval, _SOON)
    with open(samples, "wb") as out, suppress(BrokenPipeError):
        while True:
            out.write(_sample(directory, watched) + b"\n")
            out.flush()
            due = time.monotonic() + pause
            while select.select([requests], [], [], max(0, due - time.monotonic()))[0]:
                data = os.read(requests, 4096)
                if not data:
                    return 0
                watched = data.decode().split("\n")[-2]
            pause = interval
    return 0


def _sample(directory: str, watched: str) -> bytes:
    """Return the keyword arguments of a Sample as JSON in one line."""
    try:
        status, at, clients = read(directory, "status.json"), time.monotonic(), b""
        if watched:
            with suppress(OSError):  # the interface has just been destroyed
                clients = read(directory, f"{watched}/clients")
    except OSError as error:
        return json.dumps({"error": sentence_of(error)}).encode()
    text = json.dumps(clients.decode("utf-8", "replace")).encode()
    return b'{"at": %f, "status": %s, "clients": %s}' % (at, status.strip(), text)
