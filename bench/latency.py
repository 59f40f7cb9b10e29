"""The round trip of a ping to examples/responder.py. As root: python bench/latency.py [--quick].

virtfs is compared with a responder on a raw tap. Both answer with the same code. The pings alternate between the two.
They are measured twice: idle, and while a program writes frames to another interface as fast as it can.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator

from arena import BENCH, Others, Server, attach, enter, make_tap, serve
from lab import ip, program, run
from results import TIMES, Results

PINGS = 100  # pings of one sample, 10 ms apart
GOAL_RATIO, GOAL_MICROSECONDS = 2.0, 400.0
EXAMPLES = BENCH.parent / "examples"
FLOOD = "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY)\nwhile True: os.write(f, bytes(60))"


def ping(address: str) -> float:
    """Return the median round trip of PINGS pings in microseconds."""
    told = run("ping", "-c", PINGS, "-i", "0.01", "-W", "1", address)
    times = [float(one) * 1000 for one in re.findall(r"time=([\d.]+) ms", told)]
    return statistics.median(times)


def raw(ifname: str, address: str) -> None:
    """Answer on a tap, as responder.py does on a frame file."""
    sys.path.insert(0, str(EXAMPLES))
    import socket

    import responder

    tap = attach(ifname)
    os.set_blocking(tap, True)
    while frame := os.read(tap, 65536):
        if said := responder.answer(frame, bytes.fromhex("020000000001"), socket.inet_aton(address)):
            os.write(tap, said)


@contextlib.contextmanager
def flood(server: Server) -> Iterator[None]:
    """Write frames to virt4 as fast as possible."""
    with program(sys.executable, "-c", FLOOD, server.directory / "virt4/frame"):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the round trip of a ping through a frame file")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of eight")
    Results.option(parser)
    parser.add_argument("--raw", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.raw:
        raw(*options.raw)
        return
    enter()
    ip("link set lo up")
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        (server.directory / "ctl").write_text("create 3 up inet 10.0.3.1/24\ncreate 4 up\n")
        make_tap("tap5", "10.0.5.1", 256)
        responder = program(sys.executable, EXAMPLES / "responder.py", server.directory / "virt3", "10.0.3.2")
        rival = program(sys.executable, BENCH / "latency.py", "--raw", "tap5", "10.0.5.2")
        others = Others()
        with responder, rival:
            for address in ("10.0.3.2", "10.0.5.2"):
                subprocess.run(["ping", "-c", "1", "-w", "5", address], check=True, stdout=subprocess.DEVNULL)
            idle, tap, beside = [], [], []
            for _ in range(2 if options.quick else 8):
                idle.append(ping("10.0.3.2"))
                tap.append(ping("10.0.5.2"))
                with flood(server):
                    beside.append(ping("10.0.3.2"))
        results = Results(options.json)
        results.keep("ping, idle", "virtfs", "µs", idle)
        results.keep("ping, idle", "raw tap", "µs", tap)
        results.keep("ping beside a flood", "virtfs", "µs", beside, most=GOAL_MICROSECONDS)
        ratios = [mine / its for mine, its in zip(idle, tap, strict=True)]
        results.keep("ping, idle", "virtfs", TIMES, ratios, against="raw tap", most=GOAL_RATIO)
        results.save()
        ratio = statistics.median(ratios)
        print(f"\nping, median µs: virtfs idle {statistics.median(idle):.0f}, raw tap {statistics.median(tap):.0f}")
        print(f"  virtfs divided by the raw tap {ratio:10.2f}   goal: at most {GOAL_RATIO:g}")
        print(
            f"  beside a flood, µs            {statistics.median(beside):10.0f}   goal: at most {GOAL_MICROSECONDS:g}"
        )
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
