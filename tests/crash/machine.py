"""A server that is killed again and again, and the comparison of what remains with the model."""

import ctypes
import json
import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from harness import forks, kill_points
from harness.kill_points import Countdown
from harness.places import DIR, Place
from harness.process import Process
from harness.serving import ENVIRONMENT

from .lines import BRIDGES, NAMESPACES, Lines
from .model import HOST_BRIDGE, HOSTS, OTHERS, Model, adopted, of_ctl

STATE = "/mnt/state"
_MNT_DETACH = 2
_LOOK = ["ip", "-json", "-details", "address"]
_HOSTS = {f"tap{HOSTS}", HOST_BRIDGE, *OTHERS}  # what the host has made
_ROUTES = {name: (f"10.60.{name[1]}.0/24", f"10.50.{name[1]}.9") for name, addresses in OTHERS.items() if addresses}


class Mismatch(AssertionError):
    """What remains after a kill is not what the model says."""


def write(text: str) -> str:
    """Write to ctl in one call. Return "done", "refused" with the reason, or "died"."""
    try:
        fd = os.open(f"{DIR}/ctl", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as refusal:
        try:
            return f"refused: {refusal.strerror}, {Path(DIR, 'last_error').read_text().strip()}"
        except OSError:
            return "died"
    return "done"


def use_clone() -> str:
    """Open clone, make its tap persistent, and close it again. Return "done" or "died"."""
    try:
        fd = os.open(f"{DIR}/clone", os.O_RDWR)
        try:
            unit = os.read(fd, 20).decode().strip()
            return write(f"virt{unit} persist up inet 10.8.8.1/24\n")
        finally:
            os.close(fd)
    except OSError:
        return "died"


Shown = dict[str, list[dict[str, Any]]]


def look() -> tuple[str, str, str, Shown, list[dict[str, Any]]]:
    """Return the texts of ctl, status.json and the state file, and what ip(8) shows: the interfaces in each namespace,
    and the routes through gateways."""
    spaces = {"": _LOOK, **{name: ["ip", "-n", name, *_LOOK[1:]] for name in NAMESPACES}}
    shown = {name: json.loads(subprocess.run(words, capture_output=True).stdout) for name, words in spaces.items()}
    routes = json.loads(subprocess.run(["ip", "-json", "route"], capture_output=True).stdout)
    return Path(DIR, "ctl").read_text(), Path(DIR, "status.json").read_text(), Path(STATE).read_text(), shown, routes


def detach() -> int:
    """Detach the mount of a dead server."""
    status: int = ctypes.CDLL(None).umount2(DIR.encode(), _MNT_DETACH)
    return status


class Machine:
    """A place with two more namespaces and two other interfaces, a server in it, and the model of its state."""

    def __init__(self, seed: int) -> None:
        self.history: list[str] = []
        self.kills = 0
        self.kept = dict.fromkeys(("whole", "not at all", "acknowledged"), 0)
        self._random = Random(seed)
        self._lines = Lines(self._random)
        self._next: dict[str, int] = {}  # for each kind of line, the call at which the server is killed next
        self._model = Model()
        self._indices: dict[tuple[str, str], int] = {}
        self._place = Place()
        self._memory = kill_points.memory()
        self._countdown = Countdown(self._memory)
        self._server: forks.Fork | None = None
        self._place.ip(f"tuntap add tap{HOSTS} mode tap")
        self._place.ip(f"link set tap{HOSTS} addrgenmode none")  # no IPv6 address of its own
        for name in NAMESPACES:
            self._place.ip(f"netns add {name}")
        self._place.ip("netns add peers")
        self._place.ip(f"link add {HOST_BRIDGE} type bridge")
        self._place.ip(f"link set {HOST_BRIDGE} addrgenmode none up")
        self._place.ip(f"address add 10.8.9.1/24 dev {HOST_BRIDGE}")
        for name, addresses in OTHERS.items():
            self._place.ip(f"link add {name} type veth peer name {name} netns peers")
            self._place.ip(f"-n peers link set {name} addrgenmode none up")
            self._place.ip(f"link set {name} addrgenmode none up")
            for address in sorted(addresses):
                self._place.ip(f"address add {address} dev {name}")
            if name in _ROUTES:
                self._place.ip("route add {} via {} dev {}".format(*_ROUTES[name], name))
        self._hosts = _hosts_indices(json.loads(self._place.ip("-json link")))
        self._agent = Process(self._place)

    def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._die()
        self._agent.close()
        self._place.close()
        os.close(self._memory)

    def round(self) -> None:
        """Run some lines, kill the server during the last of them or soon after, and compare what the next one has."""
        for _ in range(self._random.randrange(3)):
            kind, line, after = self._lines.next(self._model)
            self._run([(kind, line, after)], "no kill")
        if self._random.random() < 0.05:
            self._run([("clone", "", self._model)], self._random.choice(["call", "time"]))
            return
        script = []
        model = self._model
        for _ in range(self._random.choice([1, 1, 1, 2, 3])):
            script.append(self._lines.next(model))
            model = script[-1][2]
            if script[-1][0] == "refused":
                break
        self._run(script, self._random.choice(["call", "call", "time"]))

    def start(self) -> None:
        """Start the first server."""
        self._start(False)

    def _start(self, with_kills: bool) -> None:
        """Start a server. with_kills: kill some before they have replayed everything."""
        while with_kills and self._random.random() < 0.7:
            self._countdown.left = self._random.randrange(1, 60 + 60 * len(self._model.virts))
            self.history.append(f"killed at call {self._countdown.left} of a start")
            mounted = self._begin()
            self._countdown.left = 0
            self._die()
            if mounted:
                break
            self.kills += 1
        if not self._begin():
            raise Mismatch("the server does not start")

    def _begin(self) -> bool:
        """Start a server. Return whether it has mounted."""
        self._server = forks.start(
            "virtfs", "mount", "-f", "-o", f"state={STATE}", DIR,
            place=self._place.pid, environment={**ENVIRONMENT, kill_points.VARIABLE: "3"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, files=[self._memory],
        )  # fmt: skip
        assert self._server.stderr is not None
        for line in self._server.stderr:
            if "is mounted" in line:
                return True
            self.history.append(f"the server says: {line.strip()}")
        return False

    def _die(self) -> None:
        assert self._server is not None
        assert self._server.stderr is not None
        self._server.kill()
        self._server.wait()
        for line in self._server.stderr:
            self.history.append(f"the server said: {line.strip()}")
        self._server.stderr.close()
        self._server = None
        while self._agent.call(detach) == 0:
            pass

    def _run(self, script: list[tuple[str, str, Model]], way: str) -> None:
        """Write lines. way: "no kill"; "call", at a call of a door; "time", some milliseconds after the write began."""
        text = "".join(f"{line}\n" for _, line, _ in script)
        kinds = " ".join(kind for kind, _, _ in script)
        at = self._call(kinds)
        timer = None
        if way == "call":
            self._countdown.left = at
            self.history.append(f"{text.strip()!r}, killed at call {at}")
        elif way == "time":
            assert self._server is not None
            pause = self._random.random() * 0.03
            self.history.append(f"{text.strip()!r}, killed after {pause * 1000:.1f} ms")
            timer = threading.Timer(pause, partial(os.kill, self._server.pid, signal.SIGKILL))
            timer.start()
        else:
            self.history.append(repr(text.strip()))
        answer = self._agent.call(write, text) if text.strip() else self._agent.call(use_clone)
        self.history.append(answer)
        if timer is not None:
            timer.join()
        if way != "no kill":
            if way == "call" and self._countdown.left and len(script) == 1:
                self._next[kinds] = 0  # the server survived: all calls of such lines have been tried
            self._countdown.left = 0
            self._die()
            self.kills += 1
        models = [self._model, *(after for _, _, after in script)]
        wanted = "refused" if script[-1][0] == "refused" else "done"
        if answer.partition(":")[0] not in (wanted, "died" if way != "no kill" else wanted):
            raise Mismatch(f"{answer}, not {wanted}")
        allowed = models if answer == "died" else models[-1:]
        if way != "no kill":
            self._start(self._random.random() < 0.2)
        if answer == "died" and any(
            "adopt" in line or adopted(after) != adopted(models[0]) for _, line, after in script
        ):
            self._complete(models)
        if answer == "died":
            self._remove_strays(script)
        self._model = self._compare(allowed, models)
        if answer == "died":
            self.kept["whole" if self._model is models[-1] else "not at all"] += 1
        else:
            self.kept["acknowledged"] += 1

    def _complete(self, models: list[Model]) -> None:
        """Complete a move of addresses that was cut short, as virtfs(5) says in BRIDGES, and undo it.

        Mismatch: an address is nowhere, or on another interface. models: the states before and after each line.
        """
        ctl, _, _, shown, routes = self._agent.call(look)
        found, _ = of_ctl(ctl)
        rows = {row["ifname"]: row for row in shown[""]}
        places = {name: _inet(row) for name, row in rows.items()}
        for other, (destination, _) in _ROUTES.items():
            addresses, allowed = OTHERS[other], {other, *BRIDGES}
            where = {name for name, its in places.items() if its & addresses}
            if frozenset[str]().union(*(places[name] & addresses for name in where)) != addresses or where - allowed:
                raise Mismatch(f"the addresses of {other} are on {where}: {places}")
            if not {row["dev"] for row in routes if row["dst"] == destination} & allowed:
                raise Mismatch(f"the route of {other} is gone: {routes}")
            if other in adopted(found):
                continue
            for name in sorted(where - {other}):
                script = f"ensure {name} add {other} adopt\n{name} delete {other}\n"
                self._do(script if name in found.bridges else f"{script}destroy {name}\n")
                if name not in found.bridges:
                    if "ifalias" in rows[name]:
                        raise Mismatch(f"{name} belongs to the host, and has the alias {rows[name]['ifalias']}")
                    self._place.ip(f"link del {name}")
                    continue
                now, _ = of_ctl(self._agent.call(look)[0])
                now.bridges[name].pop("up", None)
                if any(model.fits(now, models, False) for model in models):
                    self._do(f"{name} down\n")

    def _remove_strays(self, script: list[tuple[str, str, Model]]) -> None:
        """Remove the addresses of a line that was cut short from bridges with adopted members, where they may stay."""
        said = {word for _, line, _ in script for word in line.split() if "/" in word}
        ctl, _, _, shown, _ = self._agent.call(look)
        found, _ = of_ctl(ctl)
        for row in shown[""]:
            words = found.bridges.get(row["ifname"], {})
            adopts = row["ifname"] in {*adopted(found).values(), *(_ROUTES if "adopt" in str(script) else ())}
            for address in sorted((_inet(row) & said) - words.get("inet", frozenset())) if adopts else ():  # type: ignore[operator]
                self.history.append(f"{row['ifname']} had {address}")
                self._place.ip(f"address del {address} dev {row['ifname']}")

    def _do(self, script: str) -> None:
        """Run lines that must succeed."""
        self.history.append(repr(script))
        if (answer := self._agent.call(write, script)) != "done":
            raise Mismatch(f"{answer}, not done")

    def _call(self, kinds: str) -> int:
        """Return the call at which to kill the server during lines of these kinds.

        The calls of a single line are tried in turn. The calls of several lines are too many for that.
        """
        if " " in kinds:
            return self._random.randrange(1, 100 * len(kinds.split()))
        self._next[kinds] = at = self._next.get(kinds, 0) + 1
        return at

    def _compare(self, models: list[Model], history: list[Model]) -> Model:
        """Return the model that equals what ctl, the state file and the kernel have. Mismatch: none does.

        history: the models before and after each of the last lines.
        """
        ctl, status, file, shown, routes = self._agent.call(look)
        failed = json.loads(status)["state"]["failed_lines"]
        if failed or file != ctl:
            raise Mismatch(f"failed lines: {failed}\nctl:\n{ctl}\nstate file:\n{file}")
        try:
            found, made = of_ctl(ctl)
        except (ValueError, KeyError) as wrong:
            raise Mismatch(f"{wrong!r} in ctl:\n{ctl}") from None
        exact = models is not history
        fitting = [model for model in models if model.fits(found, history, exact)]
        if not fitting:
            expected = "\nor ".join(map(str, models))
            raise Mismatch(f"ctl has\n{found}\nnot {expected}")
        persistent = {f"tap{unit}" for unit, words in found.virts.items() if "persist" in words}
        expected_made = (persistent | set(found.bridges)) - _HOSTS
        if made != expected_made:
            raise Mismatch(f"made: {made}, not {expected_made}")
        kernel, wanted = _of_kernel(shown), _expected(found)
        if (hosts := _hosts_indices(shown[""])) != self._hosts:
            raise Mismatch(f"the host's interfaces are {hosts}, not {self._hosts}")
        if HOSTS not in found.virts and not kernel.pop(f"tap{HOSTS}", {}).get("persist"):
            raise Mismatch("the host's tap is not persistent")
        if HOST_BRIDGE not in found.bridges:
            del kernel[HOST_BRIDGE]
        if kernel != wanted:
            both = {key: (kernel.get(key), wanted.get(key)) for key in kernel | wanted}
            lines = [f"{key}: {now}, not {then}" for key, (now, then) in both.items() if now != then]
            raise Mismatch("the kernel has\n" + "\n".join(lines))
        devices = {(row["dst"], row["gateway"]): row["dev"] for row in routes if "gateway" in row}
        moved = adopted(found)
        if devices != {route: moved.get(name, name) for name, route in _ROUTES.items()}:
            raise Mismatch(f"the routes have the devices {devices}, and adopted are {moved}")
        self._check_indices(shown, history)
        # What the host has made may have been changed in part, and may have had other addresses.
        if HOSTS in found.virts:
            fitting[-1].virts[HOSTS] = found.virts[HOSTS]
        if HOST_BRIDGE in found.bridges:
            fitting[-1].bridges[HOST_BRIDGE] = found.bridges[HOST_BRIDGE]
        return fitting[-1]

    def _check_indices(self, shown: dict[str, list[dict[str, Any]]], models: list[Model]) -> None:
        """Compare the indices of taps that were persistent, and in one namespace, during all lines."""
        before = self._indices
        self._indices = {}
        for netns, rows in shown.items():
            self._indices |= {(row["ifname"], netns): row["ifindex"] for row in rows}
        for unit, words in models[0].virts.items():
            place = f"tap{unit}", str(words.get("netns", ""))
            stays = all(
                "persist" in one.virts.get(unit, {}) and one.virts[unit].get("netns") == words.get("netns")
                for one in models
            )
            if stays and before.get(place) != (now := self._indices.get(place)):
                raise Mismatch(f"{place} had the index {before.get(place)} and has {now}")


def _expected(model: Model) -> dict[str, dict[str, object]]:
    """Return what the kernel must have, by the names of interfaces."""
    moved = adopted(model)
    links: dict[str, dict[str, object]] = {
        name: {"master": "", "inet": frozenset() if name in moved else addresses} for name, addresses in OTHERS.items()
    }
    for name, words in model.bridges.items():
        inet: frozenset[str] = words.get("inet", frozenset())  # type: ignore[assignment]
        inet = inet.union(*(OTHERS[other] for other, bridge in moved.items() if bridge == name))
        links[name] = {"up": "up" in words, "inet": inet}
        for value in words.get("add", ()):  # type: ignore[attr-defined]
            links[str(value).removesuffix(" adopt")]["master"] = name
    for unit, words in model.virts.items():
        links[f"tap{unit}"] = {
            "netns": words.get("netns", ""),
            "mtu": int(str(words.get("mtu", 1500))),
            "queue": int(str(words.get("queue", 256))),
            "up": "up" in words,
            "promisc": "promisc" in words,
            "persist": "persist" in words,
            "address": words["taplink"],
            "inet": words.get("inet", frozenset()),
            "master": words.get("bridge", ""),
        }
    return links


def _of_kernel(shown: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, object]]:
    """Return what ip(8) shows, in the form of _expected()."""
    links: dict[str, dict[str, object]] = {}
    for netns, rows in shown.items():
        for row in rows:
            name, flags = row["ifname"], row["flags"]
            inet = _inet(row)
            if name in OTHERS:
                links[name] = {"master": row.get("master", ""), "inet": inet}
            elif row.get("linkinfo", {}).get("info_kind") == "bridge":
                links[name] = {"up": "UP" in flags, "inet": inet}
            elif name != "lo":
                key = name if name not in links else f"{name} in {netns}"
                links[key] = {
                    "netns": netns,
                    "mtu": row["mtu"],
                    "queue": row["txqlen"],
                    "up": "UP" in flags,
                    "promisc": "PROMISC" in flags,
                    "persist": bool(row.get("linkinfo", {}).get("info_data", {}).get("persist")),
                    "address": row["address"],
                    "inet": inet,
                    "master": row.get("master", ""),
                }
    return links


def _inet(row: dict[str, Any]) -> frozenset[str]:
    """Return the IPv4 addresses of an interface, from what ip(8) shows."""
    return frozenset(f"{one['local']}/{one['prefixlen']}" for one in row["addr_info"] if one["family"] == "inet")


def _hosts_indices(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return the indices of the host's interfaces by name."""
    return {row["ifname"]: row["ifindex"] for row in rows if row["ifname"] in _HOSTS}
