"""Two hosts joined in different ways, compared with the bare wire. As root: python bench/hosts.py [--quick] [WAY …].

The hosts are network namespaces joined by a veth, each with a virtfs of its own. The results are ratios within one
run: in each round, every way takes its turn. TCP throughput is measured by iperf3, round-trip time by ping.
"""

import argparse
import contextlib
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from arena import Others, Server, enter, serve
from lab import Rate, entering, ip, namespaces, program, run, until
from results import TIMES, Results

WIRE = "bare veth"
EAST, WEST = "east", "west"
PORT = 7777
PINGS, APART = 200, 0.004  # echo requests of a measurement, and the seconds between two
SECONDS = 2.0


@dataclass(frozen=True)
class Way:
    """A connection of the two hosts.

    net: the first three bytes of its IPv4 network. East is .1 in it, and west .2.
    """

    net: str

    def bits(self) -> float:
        """Return the TCP payload carried, in Gbit/s."""
        return Rate(EAST, WEST, f"{self.net}.2").tcp(SECONDS) / 1e9

    def round_trip(self) -> float:
        """Return the average round-trip time of ping, in microseconds."""
        told = run(*entering(EAST), "ping", "-q", "-c", PINGS, "-i", APART, f"{self.net}.2")
        average = re.search(r"= [\d.]+/([\d.]+)/", told)
        assert average, told
        return float(average[1]) * 1000


Hosts = dict[str, Server]


def ctl(host: Server, line: str) -> None:
    """Write a command to a host's ctl."""
    (host.directory / "ctl").write_text(f"{line}\n")


@contextlib.contextmanager
def vxlan(hosts: Hosts) -> Iterator[Way]:
    """Join bridges of virtfs by VXLAN ports. The hosts' addresses are on the bridges."""
    for number, name in enumerate((EAST, WEST), 1):
        peer = f"192.0.2.{3 - number}"
        ip(f"-n {name} link add vxlan7 up mtu 1450 type vxlan id 7 dstport 4789 remote {peer}")
        ctl(hosts[name], f"create bridge0 up inet 10.81.1.{number}/24 add vxlan7")
    yield Way("10.81.1")


@contextlib.contextmanager
def cable(hosts: Hosts) -> Iterator[Way]:
    """Join interfaces by a cable over TCP."""
    for number, name, socket in (2, WEST, f"tcp-listen:{PORT}"), (1, EAST, f"tcp:192.0.2.2:{PORT}"):
        ctl(hosts[name], f"create 2 up inet 10.81.2.{number}/24")
        ctl(hosts[name], f"cable 2 {socket}")
    status = hosts[EAST].directory / "status.json"
    until("the cable", lambda: '"state": "connected"' in status.read_text())
    yield Way("10.81.2")


@contextlib.contextmanager
def stream(hosts: Hosts) -> Iterator[Way]:
    """Join the `stream` files of interfaces by socat processes and TCP."""
    files = {name: f"OPEN:{host.directory}/virt3/stream" for name, host in hosts.items()}
    for number, name in enumerate((EAST, WEST), 1):
        ctl(hosts[name], f"create 3 up inet 10.81.3.{number}/24")
    socat = [*_net(WEST), "socat", "-b65536", f"TCP-LISTEN:{PORT + 1},reuseaddr", files[WEST]]
    near = [*_net(EAST), "socat", "-b65536", files[EAST], f"TCP:192.0.2.2:{PORT + 1},retry=50,interval=0.1"]
    with program(*socat), program(*near):
        for host in hosts.values():
            (host.directory / "virt3/wait/reader").read_text()
        yield Way("10.81.3")


WAYS: dict[str, Callable[[Hosts], contextlib.AbstractContextManager[Way]]] = {
    "vxlan": vxlan,
    "cable": cable,
    "stream": stream,
}
TITLES = {"vxlan": "bridges, VXLAN ports", "cable": "cable over TCP", "stream": "stream, socat, TCP"}


def _net(name: str) -> list[str]:
    """Return the words that run a command in a network namespace, but in this mount namespace, unlike ip-netns(8)."""
    return ["nsenter", f"--net=/run/netns/{name}", "--"]


def compare(
    title: str, unit: str, measured: Callable[[Way], float], ways: dict[str, Way], rounds: int, results: Results
) -> None:
    """Measure every way once in each round, and print and keep the medians and the ratios to the bare wire."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            samples[name].append(measured(way))
    print(f"\n{title}\n  {'':24}{unit:>10}   divided by the {WIRE}: median (lowest–highest)")
    for name, figures in samples.items():
        ratios = [its / wire for its, wire in zip(figures, samples[WIRE], strict=True)]
        told = f"   {statistics.median(ratios):6.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if name != WIRE else ""
        print(f"  {name:24}{statistics.median(figures):10.2f}{told}", flush=True)
        results.keep(title, name, unit, figures)
        if name != WIRE:
            results.keep(title, name, TIMES, ratios, against=WIRE)


def main() -> None:
    parser = argparse.ArgumentParser(description="compare ways to join two hosts")
    parser.add_argument("ways", metavar="WAY", nargs="*", help=", ".join(WAYS))
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"unknown way {', '.join(sorted(unknown))}")
    enter()
    others, rounds, results = Others(), 1 if options.quick else 5, Results(options.json)
    with namespaces(EAST, WEST), contextlib.ExitStack() as stack:
        ip(f"link add eth0 netns {EAST} type veth peer name eth0 netns {WEST}")
        for number, name in enumerate((EAST, WEST), 1):
            ip(f"-n {name} address add 192.0.2.{number}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
        virtfs = [sys.executable, "-m", "virtfs", "mount", "-f"]
        hosts = {name: stack.enter_context(serve(name, [*_net(name), *virtfs], "ctl")) for name in (EAST, WEST)}
        ways = {WIRE: Way("192.0.2")}
        for name in options.ways or WAYS:
            ways[TITLES[name]] = stack.enter_context(WAYS[name](hosts))
        compare("two hosts: TCP by iperf3, one connection", "Gbit/s", Way.bits, ways, rounds, results)
        compare("two hosts: round-trip time of ping", "µs", Way.round_trip, ways, rounds, results)
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    results.save()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
