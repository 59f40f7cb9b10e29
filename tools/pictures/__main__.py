"""Make pictures: python -m pictures [--measure] [NAME …], as root. Without names it makes all of them.

A picture that did not change but for random addresses and times is written again: look at each one before you keep it.
"""

import argparse
import os
from collections.abc import Callable

from docs.markdown import ROOT

from . import plots, sessions

DIRECTORY = ROOT / "doc/pictures"
LARGEST = 60_000  # bytes
PICTURES: dict[str, Callable[[], str]] = {
    "tour": sessions.tour,
    "top": sessions.top,
    "tshark": sessions.capture,
    "topology": sessions.topology,
    "planes": lambda: sessions.drawing("planes"),
    "frame": lambda: sessions.drawing("frame"),
    "throughput": plots.throughput,
    "impair": plots.impair,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="pictures", description="make the pictures in doc/pictures")
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(PICTURES))
    parser.add_argument("--measure", action="store_true", help="first run the benchmarks of the plot, for 4 minutes")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PICTURES):
        parser.error(f"unknown picture {', '.join(sorted(unknown))}")
    if os.geteuid():
        raise SystemExit("pictures: run this as root: it mounts and creates network namespaces")
    if options.measure:
        plots.measure()
    for name in options.names or PICTURES:
        file = DIRECTORY / f"{name}.svg"
        picture = PICTURES[name]()
        assert len(picture.encode()) <= LARGEST, f"{file} would have {len(picture)} bytes"
        file.write_text(picture)
        print(f"{file.relative_to(ROOT)}: {len(picture.encode()) / 1000:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
