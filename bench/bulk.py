"""Many frames in one call through `stream`, compared with `frame`. As root: python bench/bulk.py [--quick] [WORK …].

Both are files of one virtfs. They take turns (A B A B …). Each round gives a ratio, and the result is the
median of these ratios.
"""

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from arena import Others, Server, build, enter, fail, serve
from results import TIMES, Results
from run import CLIENT_SECONDS, Setting, settings

QUEUE = 5000  # frames; client.c fills it with RECORDS


@dataclass(frozen=True)
class Work:
    """A kind of work for the client. goals: for each setting, the least rate of `stream` divided by that of `frame`."""

    name: str
    mode: str
    size: int
    goals: dict[str, float]


WORKS = [
    Work("read60", "read", 60, {"one": 8, "two": 40}),
    Work("write60", "write", 60, {"one": 6, "two": 40}),
    Work("read1514", "read", 1514, {}),
    Work("write1514", "write", 1514, {}),
]


def rate(client: Path, server: Server, work: Work, file: str, setting: Setting, seconds: float) -> float:
    """Run the client once. Return the number of frames in a second."""
    mode = work.mode + ("-records" if file == "stream" else "")
    command: list[str | Path] = [client, mode, server.directory / "virt3" / file, str(seconds), str(work.size), "tap3"]
    pinned: list[str | Path] = ["taskset", "-c", ",".join(map(str, setting.client)), *command]
    server.pin(setting.server)
    done = subprocess.run(pinned, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS)
    if done.returncode:
        fail(f"{file}: the client for {work.name} ended with status {done.returncode}")
    frames, nanoseconds = map(int, done.stdout.split())
    return frames * 1e9 / nanoseconds


def measure(
    client: Path, server: Server, work: Work, setting: Setting, rounds: int, seconds: float, results: Results
) -> str | None:
    """Print and keep the result of one kind of work. Return the goal that was missed, as a line of text, or None."""
    pairs = []
    for number in range(rounds + 1):
        pair = [rate(client, server, work, file, setting, seconds) for file in ("stream", "frame")]
        if number:  # the first round is for warming up
            pairs.append(pair)
    ratios = [stream / frame for stream, frame in pairs]
    median, goal = statistics.median(ratios), work.goals.get(setting.name)
    costs = [1e6 / statistics.median(rates) for rates in zip(*pairs, strict=True)]
    missed = goal is not None and median < goal
    what = f"{work.name}, {setting.name}"
    results.keep(what, "virtfs, stream", TIMES, ratios, against="virtfs, frame", least=goal)
    print(
        f"{work.name:10} {setting.title:32} stream {costs[0]:5.2f} µs a frame, frame {costs[1]:5.2f};"
        f" {median:5.1f} times ({min(ratios):.1f}–{max(ratios):.1f})"
        + (f"  goal: {goal:g}" if goal else "")
        + ("  MISSED" if missed else ""),
        flush=True,
    )
    return f"{work.name}, {setting.title}: {median:.1f} times, the goal is {goal:g}" if missed else None


def main() -> None:
    parser = argparse.ArgumentParser(description="compare stream with frame")
    parser.add_argument("works", metavar="WORK", nargs="*", help=", ".join(work.name for work in WORKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    Results.option(parser)
    options = parser.parse_args()
    if unknown := set(options.works) - {work.name for work in WORKS}:
        parser.error(f"unknown work {', '.join(sorted(unknown))}")
    enter()
    rounds, seconds = (3, 0.2) if options.quick else (9, 0.5)
    client, results = build("client"), Results(options.json)
    with serve("virtfs", [sys.executable, "-m", "virtfs", "mount", "-f"], "ctl") as server:
        (server.directory / "ctl").write_text(f"create 3 up queue {QUEUE}\n")
        others = Others()
        missed = [
            line
            for setting in settings()
            for work in WORKS
            if not setting.others
            if not options.works or work.name in options.works
            if (line := measure(client, server, work, setting, rounds, seconds, results))
        ]
        print(f"\nother programs meanwhile: {others.share():.0%} of a CPU")
    results.save()
    print("\nmissed goals:" if missed else "\nall goals are reached")
    for line in missed:
        print(f"  {line}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
