"""The tap that `fd` gives, compared with a tap without virtfs. As root: python bench/descriptor.py [--quick] [WORK …].

The same client works on three descriptors, which take turns (A B C A B C …): that of a tap that virtfs does not know,
one that virtfs gives for {"vnet_hdr":0}, and one of a tap that virtfs has lent. Each round gives
ratios, and a result is their median over the rounds. The client measures its own CPU time, because no server works for
it.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from arena import Others, attach, build, enter, fail, make_tap, serve
from results import TIMES, Results
from run import CLIENT_SECONDS, WORKS, Setting, Work, settings

from virtfs.cli.execute import borrow

QUEUE = 256  # frames; the default of virtfs
GOAL = 0.97  # 1.0 within the noise of a run
ADDRESSES = {"raw": "10.0.2", "given": "10.0.3", "lent": "10.0.4"}
TAPS = {"raw": "raw0", "given": "tap3", "lent": "tap4"}


def rate(client: Path, work: Work, tap: int, way: str, setting: Setting, seconds: float) -> float:
    """Run the client once. Return the number of frames in a second."""
    what = f"{ADDRESSES[way]}.1" if work.mode == "roundtrip" else str(work.size)
    command = ["taskset", "-c", ",".join(map(str, setting.client)), str(client)]
    command += [work.mode, f"fd:{tap}", str(seconds), what, TAPS[way]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS, pass_fds=[tap])
    if done.returncode:
        fail(f"{way}: the client for {work.name} ended with status {done.returncode}")
    frames, nanoseconds = map(int, done.stdout.split())
    return frames * 1e9 / nanoseconds


def measure(
    client: Path, work: Work, taps: dict[str, int], setting: Setting, rounds: int, seconds: float, results: Results
) -> list[str]:
    """Print and keep the results of one kind of work. Return the goals that were missed, as lines of text."""
    samples = []
    for number in range(rounds + 1):
        sample = {way: rate(client, work, tap, way, setting, seconds) for way, tap in taps.items()}
        if number:  # the first round is for warming up
            samples.append(sample)
    missed = []
    for way in ("given", "lent"):
        ratios = [sample[way] / sample["raw"] for sample in samples]
        ratio = statistics.median(ratios)
        results.keep(work.name, f"virtfs, {way}", TIMES, ratios, against="raw tap", least=GOAL)
        cost = 1e6 / statistics.median(sample[way] for sample in samples)
        low = ratio < GOAL
        print(
            f"{work.name:10} {way:6} {cost:5.2f} µs a frame; {ratio:4.2f} of the raw tap{'  MISSED' if low else ''}",
            flush=True,
        )
        if low:
            missed.append(f"{work.name}, {way}: {ratio:.2f} of the raw tap, the goal is 1.0")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description="compare the tap that fd gives with a raw tap")
    parser.add_argument("works", metavar="WORK", nargs="*", help=", ".join(work.name for work in WORKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.works) - {work.name for work in WORKS}:
        parser.error(f"unknown work {', '.join(sorted(unknown))}")
    enter()
    rounds, seconds = (10, 0.05) if options.quick else (60, 0.05)
    setting = next(setting for setting in settings() if setting.name == "one")
    client, results = build("client"), Results(options.json)
    make_tap(TAPS["raw"], f"{ADDRESSES['raw']}.1", QUEUE)
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        lines = [f"create {TAPS[way][3:]} up inet {ADDRESSES[way]}.1/24" for way in ("given", "lent")]
        (server.directory / "ctl").write_text("\n".join(lines))
        connection, given = borrow(server.directory / "virt3", {"vnet_hdr": 0})
        other, _ = borrow(server.directory / "virt4", {"lend": True})
        with closing(connection), closing(other):
            taps = {"raw": attach(TAPS["raw"]), "given": given, "lent": attach(TAPS["lent"])}
            for tap in taps.values():
                os.set_blocking(tap, True)
            others, missed = Others(), []
            for work in WORKS:
                if not options.works or work.name in options.works:
                    missed += measure(client, work, taps, setting, rounds, seconds, results)
            print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
            for tap in taps.values():
                os.close(tap)
    results.save()
    print("\nmissed goals:" if missed else "\nall goals are reached")
    for line in missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
