"""`virtfs ls`: the mounts that the user can see, with their interfaces, bridges and cables."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from virtfs.cli.columns import cut, host_of, owner_of, short, state_of, table
from virtfs.cli.mounts import Answer, ask, chosen, expect_virtfs, no_mount, read, say, visible, visible_at
from virtfs.cli.rates import Object, rates_of
from virtfs.cli.shell_mark import inside, own
from virtfs.cli.surroundings import complain
from virtfs.core.errors import VirtError
from virtfs.core.quoting import one_line, quoted
from virtfs.fuse.mounttable import Mounted
from virtfs.host.netnames import name_of_inode
from virtfs.host.netns import own_identity

INTERVAL = 0.25  # seconds between the two samples from which the rates are computed

_OTHER_FORMATS = (".png", ".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".ps", ".eps", ".dot")  # formats of dot(1)
_LOSING = ("impair", "filter")  # the settings that drop or change frames


def ls(directory: str | None, as_json: bool) -> int:
    """Print a mount, or all mounts that the user can see. Return the exit status: 0, or 1 if a mount cannot be read.

    directory: the mount point; None for all mounts. VirtError: EINVAL, no virtfs is mounted there.
    """
    found = visible() if directory is None else [visible_at(directory)]
    answers = ask([mount.directory for mount in found], _samples)
    seen = [describe(mount, answer) for mount, answer in zip(found, answers, strict=True)]
    if as_json:
        say(json.dumps({"mounts": seen}, ensure_ascii=False) + "\n")
    else:
        if not seen:
            complain("virtfs", no_mount())
        width = shutil.get_terminal_size((sys.maxsize, 24)).columns  # no limit in a pipe or file
        say("\n".join("".join(f"{line}\n" for line in lines(one, width)) for one in seen))
    errors = [(mount, one.error) for mount, one in zip(found, answers, strict=True) if one.error]
    return int(any(directory is not None or not _of_others(mount, error) for mount, error in errors))


def _of_others(mount: Mounted, error: OSError) -> bool:
    """Return whether an error is the affair of other users: the mount admits only them, or they have ended it.

    A mount that ends outside of a `virtfs shell` stays in the shell's mount namespace.
    """
    return error.errno == errno.EACCES or (error.errno == errno.ENOTCONN and inside() and mount.directory != own())


def draw(directory: str | None, file: str) -> None:
    """Draw the topology of a mount as an SVG image.

    directory: the mount point; None for the default (mounts.chosen). file: the name of the image, "-" for standard
    output. VirtError: EINVAL, the name is that of another format; ENOENT, dot is not installed, or no virtfs is mounted
    there; ETIMEDOUT, the mount does not answer; EIO, dot has failed.
    """
    if (suffix := Path(file).suffix.lower()) in _OTHER_FORMATS:
        remedy = f'choose a name that ends in .svg, or type "dot -T{suffix[1:]} topology" in the mount'
        raise VirtError(errno.EINVAL, f"{quoted(file)}: --svg draws in SVG: {remedy}")
    dot = shutil.which("dot")
    if dot is None:
        raise VirtError(errno.ENOENT, 'drawing needs the program "dot": install Graphviz (package graphviz)')
    where = chosen(directory)
    if directory is not None and not os.path.lexists(where):  # also the second word of a name without quotes
        if directory.startswith("/"):
            raise VirtError(errno.ENOENT, f"{quoted(directory)} is not a virtfs mount: there is no such directory")
        remedy = "if it is a part of the name of the image, put that name in quotes"
        raise VirtError(errno.ENOENT, f"{quoted(directory)} is not a virtfs mount; {remedy}")
    expect_virtfs(where)
    (answer,) = ask([where], lambda mount: read(mount, "topology"))
    if answer.error is not None:
        raise answer.error
    done = subprocess.run([dot, "-Tsvg"], input=answer.data, capture_output=True, check=False)
    if done.returncode:
        raise VirtError(errno.EIO, f"dot failed: {done.stderr.decode(errors='replace').strip()}")
    if file == "-":
        say(done.stdout.decode())
    else:
        Path(file).write_bytes(done.stdout)


def _samples(directory: str) -> bytes:
    """Return two samples of status.json with their times, as JSON. Runs in a child."""
    first, at = read(directory, "status.json"), time.monotonic()
    time.sleep(INTERVAL)
    second, then = read(directory, "status.json"), time.monotonic()
    return b'{"seconds": %f, "first": %s, "second": %s}' % (then - at, first, second)


def describe(mount: Mounted, answer: Answer) -> dict[str, object]:
    """Return the object that describes a mount in `virtfs ls --json`."""
    status, rates = None, {}
    if answer.error is None:
        samples = json.loads(answer.data)
        status = samples["second"]
        rates = rates_of(samples["first"], status, samples["seconds"])
    return {
        "directory": mount.directory,
        "source": mount.source,
        "error": None if answer.error is None else answer.error.strerror,
        "status": status,
        "rates": rates,
    }


def lines(one: Object, width: int) -> Iterator[str]:
    """Yield the lines of `virtfs ls` about a mount.

    one: from describe(). width: the maximum length of a line. Sentences about faults are not cut.
    """
    status: Object | None = one["status"]
    if status is None:
        yield f"{one_line(one['directory'])}  {one_line(one['error'])}"
        return
    virts, bridges, cables = status["virts"], status["bridges"], status["cables"]
    counts = [_count(len(virts), "interface"), _count(len(bridges), "bridge"), _count(len(cables), "cable")]
    elsewhere = _elsewhere(status.get("netns", 0))  # an older server does not say it
    yield cut(f"{one_line(one['directory'])}  {', '.join(counts)}{elsewhere}", width)
    if virts:
        heads = ("", "INTERFACE", "STATE", "OWNER", "READERS", "RX/S", "TX/S", "DROPPED", "HOST")
        rows = [_row(virt, one["rates"].get(virt["name"], {})) for virt in virts]
        head, *described = table([heads, *rows], "<<<<>>>><", width)
        yield head
        for virt, line in zip(virts, described, strict=True):
            yield line
            yield from (cut(f"    {name} {virt[name]}", width) for name in _LOSING if virt[name])
    if bridges:
        rows = [_bridge_row(bridge) for bridge in bridges]
        yield from table([("", "BRIDGE", "STATE", "MEMBERS", "ADDRESSES"), *rows], "<<<<<", width)
    if cables:
        states = {virt["name"]: state_of(virt) for virt in virts}
        rows = [_cable_row(cable, states) for cable in cables]
        yield from table([("", "CABLE", "STATE", "LOST", "DROPPED", "IMPAIRMENT"), *rows], "<<<>><", width)
        for cable in cables:
            if cable["socket"] and cable["socket"]["error"]:
                yield f"  {cable['ends'][0]}: {one_line(cable['socket']['error'])}"
    yield from _of_state(status["state"])


def _elsewhere(netns: int) -> str:
    """Name the network namespace of a mount if it is not that of the caller. netns: its inode, 0 if unknown."""
    if netns in (0, own_identity()[1]):
        return ""
    return f"  netns {one_line(name_of_inode(netns) or f'net:[{netns}]')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(virt: Object, rates: Mapping[str, float]) -> tuple[str, ...]:
    stats = virt["stats"]
    return (
        "",
        virt["name"],
        state_of(virt),
        owner_of(virt, 8),
        str(virt["readers"]),
        short(rates.get("rx_frames", 0)),
        short(rates.get("tx_frames", 0)),
        short(stats["rx_dropped"] + stats["tx_dropped"]),
        host_of(virt),
    )


def _bridge_row(bridge: Object) -> tuple[str, ...]:
    members = " ".join(one["name"] + ("" if _has_link(bridge, one) else "(nolink)") for one in bridge["members"])
    addresses = [] if bridge["lost"] else bridge["inet"]  # those of a lost bridge are those of its lines
    return "", bridge["name"], _state(bridge), members, " ".join(addresses)


def _has_link(bridge: Object, member: Object) -> bool:
    """Return whether a port has a link. The kernel disables the others, and all ports of a bridge that is down."""
    return bool(member["state"]) or not bridge["up"]


def _cable_row(cable: Object, states: Mapping[str, str]) -> tuple[str, ...]:
    """Return the row of a cable. states: the state of each interface, in one word."""
    ways = cable["stats"].values()
    if cable["socket"]:
        state = cable["socket"]["state"]
    else:
        ends = [states[end] for end in cable["ends"]]
        state = next((word for word in ("lost", "down", "nolink") if word in ends), "up")
    lost, dropped = (short(sum(way[name] for way in ways)) for name in ("lost", "dropped"))
    return "", " - ".join(cable["ends"]), state, lost, dropped, cable["impair"]


def _of_state(state: Object | None) -> Iterator[str]:
    """Yield lines about what is wrong with the state file. state: the object of status.json, None without a file."""
    if state is None:
        return
    if not state["saved"]:
        yield f" NOT SAVED: {one_line(state['error'])}"
    if state["failed_lines"]:
        lines = _count(len(state["failed_lines"]), "line")
        yield f" NOT REPLAYED: {lines} of {one_line(state['file'])}; the command retry runs them again"
        for one in state["failed_lines"]:
            yield f"  {one_line(one['line'])}: {one_line(one['reason'])}"


def _state(bridge: Object) -> str:
    return "lost" if bridge["lost"] else "up" if bridge["up"] else "down"
