"""Interfaces whose taps are in separate network namespaces, each of which stands for a host."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.places import Place, finished
from harness.serving import Mount, Virt
from harness.waiting import PATIENCE, until


class Host(Virt):
    """The interface virt<number>. Its tap is in the namespaces of `place`, with the address 10.0.0.<number>/24."""

    def __init__(self, mount: Mount, place: Place, number: int, verbs: str = "") -> None:
        super().__init__(mount, number, f"{verbs} up")
        self.place = place
        self.address = f"10.0.0.{number}"
        mount.ip(f"link set {self.tap} netns {place.pid}")
        place.ip(f"link set {self.tap} addrgenmode none")
        place.ip(f"addr add {self.address}/24 dev {self.tap}")
        place.ip(f"link set {self.tap} up")
        self.until("up", "1")

    def ping(self, other: "Host", count: int = 10, options: str = "") -> "Ping":
        """Ping another host until `count` echoes have come back, and return them."""
        return ping(self.place, other.address, count, options)

    def hears_nothing(self, other: "Host", options: str = "") -> bool:
        """Return whether another host answers none of two pings within a second."""
        said = self.place.sh(f"ping -q -c2 -i0.02 -W1 {options} {other.address} || true")
        return "2 packets transmitted, 0 received" in said

    @contextmanager
    def serving(self) -> Iterator["subprocess.Popen[str]"]:
        """Run an iperf3 server for one client while the body runs, and wait for the server to end."""
        server = self.place.start("stdbuf", "-oL", "iperf3", "-s", "-1", "--forceflush", stdout=subprocess.PIPE)
        assert server.stdout is not None
        until(lambda: "listening" in server.stdout.readline(), "iperf3 listens")  # type: ignore[union-attr]
        yield server
        finished(server)

    def iperf3(self, other: "Host", options: str) -> dict[str, Any]:
        """Run iperf3(1) to another host and return the member `end` of its report."""
        with other.serving():
            report = json.loads(self.place.sh(f"iperf3 -J -c {other.address} {options}", seconds=2 * PATIENCE))
        end: dict[str, Any] = report["end"]
        return end


def ping(place: Place, address: str, count: int, options: str = "") -> "Ping":
    """Ping an address until `count` echoes have come back, or PATIENCE is over."""
    return Ping(place.sh(f"{pinging(address, count, options)} || true", seconds=2 * PATIENCE), count)


def pinging(address: str, count: int, options: str = "") -> str:
    """Return the command of ping().

    Without -w, ping would wait for the last echo only as long as it had waited for others.
    """
    return f"ping -n -c{count} -i0.02 -w{PATIENCE:g} {options} {address}"


class Ping:
    """The output of ping(8), which is also its representation, for a test that fails.

    sent: the number of requests. Some may have been on their way when the last echo came.
    complete: whether all echoes have come, and none was lost before the last.
    shortest: the minimum round-trip time in ms. If the machine is idle for a moment, this is the delay of the path.
    """

    def __init__(self, text: str, count: int) -> None:
        self._text = text
        counts = re.search(r"(\d+) packets transmitted", text)
        assert counts, text
        self.sent = int(counts[1])
        echoes = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)]
        self.complete = sorted(echoes) == [*range(1, count + 1)]
        self.shortest = float(found[1]) if (found := re.search(r"= ([\d.]+)/", text)) else 0.0

    def __repr__(self) -> str:
        return self._text

    def shows(self, delay: float) -> bool:
        """Return whether `shortest` fits a delay in ms: not less, and below 1.8 times the delay (or below 10 ms)."""
        return delay <= self.shortest < max(1.8 * delay, 10)
