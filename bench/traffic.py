"""Streams and cables of virtfs, compared with other programs. As root: python bench/traffic.py [--quick] [PART …].

As in run.py, results are ratios within one run: the programs take turns, and the result is the median of the ratios of
each round.
"""

import argparse
import sys

import cables
import captures
import impairments
import received
import replays
from arena import Others, build, enter, serve
from lab import Lab
from results import Results

PARTS = {
    "pcap": captures.measure,
    "pcap-mixed": captures.measure_mixed,
    "inject": replays.measure,
    "inject-mixed": replays.measure_mixed,
    "pace": replays.measure_pace,
    "rx": received.measure,
    "cable": cables.measure,
    "impair": impairments.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="compare the streams and cables of virtfs with other programs")
    parser.add_argument("parts", metavar="PART", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    enter()
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        lab = Lab(server, build("blast"), 1 if options.quick else 5, results=Results(options.json))
        others = Others()
        for name, measure in PARTS.items():
            if name in (options.parts or PARTS):
                measure(lab)
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    lab.results.save()
    print("\nmissed goals:" if lab.missed else "\nall goals are reached")
    for line in lab.missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
