"""Interfaces whose taps are in separate network namespaces, each of which stands for a host."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.places import Place, finished
from harness.serving import Mount, Virt
from harness.waiting import until


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

    def ping(self, other: "Host", options: str = "-c5 -i0.02 -W2") -> "Ping":
        """Ping another host and return the summary."""
        return Ping(self.place.sh(f"ping -q {options} {other.address} || true", seconds=30))

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
            report = json.loads(self.place.sh(f"iperf3 -J -c {other.address} {options}", seconds=30))
        end: dict[str, Any] = report["end"]
        return end


class Ping:
    """The summary that ping(8) prints. rtt, shortest: the mean and the minimum round-trip time, in ms.

    On an idle machine, `shortest` is the delay of the path.
    """

    def __init__(self, text: str) -> None:
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        assert counts, text
        self.sent, self.received = map(int, counts.groups())
        self.duplicates = int(found[1]) if (found := re.search(r"\+(\d+) duplicates", text)) else 0
        self.rtt = float(found[1]) if (found := re.search(r"= [\d.]+/([\d.]+)/", text)) else 0.0
        self.shortest = float(found[1]) if (found := re.search(r"= ([\d.]+)/", text)) else 0.0

    def shows(self, delay: float) -> bool:
        """Return whether `shortest` fits a delay in ms: not less, and below 1.8 times the delay (or below 10 ms)."""
        return delay <= self.shortest < max(1.8 * delay, 10)
