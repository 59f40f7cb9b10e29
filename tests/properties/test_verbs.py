"""After any sequence of verbs, writes to files and commands of ip(8), the state equals that of a model.

After each step, the files, ctl and the kernel are compared with the model. At the end, the text of ctl must recreate
the state.
"""

import json
from typing import Any

import pytest
from harness.serving import Mount
from harness.waiting import until
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from .model import SUBNETS, Model, Refused

units = st.integers(0, 3)
mtus = st.sampled_from([1280, 1400, 1500, 9000, 65521]).map(str)  # below 1280 the kernel disables IPv6
inets = st.integers(1, SUBNETS).map(lambda n: f"10.{n}.0.1/24")
macs = st.integers(0, 255).map(lambda n: f"02:00:00:00:00:{n:02x}")
texts = st.text("ab #=\\\"'é", min_size=1, max_size=20).map(str.strip).filter(bool)
verbs = st.one_of(
    st.sampled_from(["up", "down", "up", "strict", "-strict", "promisc", "-promisc", "antispoof", "-antispoof"]),
    st.sampled_from(["persist", "-persist", "exclusive both", "exclusive none", "carrier open", "carrier always"]),
    mtus.map("mtu {}".format),
    inets.map("inet {}".format),
    inets.map("-inet {}".format),
    macs.map("link {}".format),
    macs.map("taplink {}".format),
    st.integers(1, 1000).map("queue {}".format),
    st.integers(0, 1000).map("backlog {}".format),
    st.just("bridge nosuch"),
)
lines = st.builds(
    lambda several, last: [*several, *last],
    st.lists(verbs, max_size=5),
    st.lists(texts.map("description {}".format), max_size=1),
)
values = st.one_of(
    st.tuples(st.sampled_from(["up", "strict", "promisc", "antispoof", "persist"]), st.sampled_from(["0", "1"])),
    st.tuples(st.just("mtu"), mtus),
    st.tuples(st.sampled_from(["address", "tap/address"]), macs),
    st.tuples(st.sampled_from(["queue", "backlog"]), st.integers(1, 1000).map(str)),
    st.tuples(st.just("description"), texts),
    st.tuples(st.just("exclusive"), st.sampled_from(["read", "both", "none"])),
)


class Verbs(RuleBasedStateMachine):
    """A mount and its model."""

    mount: Mount

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def same(self, path: str, text: str, kind: str, unit: int | None, said: list[str]) -> None:
        """Write a line to the mount and to the model. Both must give the same answer."""
        expected = got = 0
        try:
            self.model.line(kind, unit, said)
        except Refused as refusal:
            expected = refusal.number
        try:
            self.mount.write(path, text)
        except OSError as refusal:
            got = refusal.errno or -1
        assert got == expected, (text, self.mount.read("last_error"))

    @rule(unit=st.none() | units, said=lines)
    def create(self, unit: int | None, said: list[str]) -> None:
        number = "" if unit is None else f" {unit}"
        self.same("ctl", f"create{number} {' '.join(said)}\n", "create", unit, said)

    @rule(unit=units, said=lines)
    def ensure(self, unit: int, said: list[str]) -> None:
        self.same("ctl", f"ensure virt{unit} {' '.join(said)}\n", "ensure", unit, said)

    @rule(unit=units)
    def destroy(self, unit: int) -> None:
        self.same("ctl", f"destroy {unit}\n", "destroy", unit, [])

    @rule(unit=units, said=lines.filter(bool))
    def change(self, unit: int, said: list[str]) -> None:
        self.same("ctl", f"virt{unit} {' '.join(said)}\n", "change", unit, said)

    @precondition(lambda self: self.model.all)
    @rule(data=st.data(), said=lines.filter(bool))
    def by_its_own_ctl(self, data: st.DataObject, said: list[str]) -> None:
        unit = data.draw(st.sampled_from(sorted(self.model.all)))
        self.same(f"virt{unit}/ctl", f"{' '.join(said)}\n", "change", unit, said)

    @precondition(lambda self: self.model.all)
    @rule(data=st.data(), value=values)
    def by_file(self, data: st.DataObject, value: tuple[str, str]) -> None:
        unit = data.draw(st.sampled_from(sorted(self.model.all)))
        self.mount.write(f"virt{unit}/{value[0]}", f"{value[1]}\n")
        self.model.all[unit].values[value[0]] = value[1]

    @precondition(lambda self: self.model.all)
    @rule(data=st.data(), mtu=mtus, inet=inets, is_up=st.booleans())
    def by_ip(self, data: st.DataObject, mtu: str, inet: str, is_up: bool) -> None:
        """Change an interface with ip(8)."""
        unit = data.draw(st.sampled_from(sorted(self.model.all)))
        up = "up" if is_up else "down"
        self.mount.ips(f"link set tap{unit} mtu {mtu} {up}\naddr replace {inet} dev tap{unit}")
        modelled = self.model.all[unit]
        modelled.values |= {"mtu": mtu, "up": str(int(is_up))}
        modelled.inets.add(inet)

    @invariant()
    def files_and_kernel_agree(self) -> None:
        assert sorted(self.mount.units()) == [f"virt{unit}" for unit in sorted(self.model.all)]
        links = {row["ifname"]: row for row in json.loads(self.mount.ip("-json -details address"))}
        assert set(links) == {"lo", *(f"tap{unit}" for unit in self.model.all)}
        for unit, modelled in self.model.all.items():
            name, link = f"virt{unit}", links[f"tap{unit}"]
            files = [*modelled.values, "tap/addresses", "tap/address", "tap/index"]
            texts = self.mount.texts(f"{name}/{file}" for file in files)
            read = dict(zip(files, texts, strict=True))
            assert {file: read[file] for file in modelled.values} == modelled.values
            assert set(read["tap/addresses"].split()) == modelled.inets
            assert self.seen(link) == self.expected(unit, read)

    def expected(self, unit: int, read: dict[str, str]) -> dict[str, Any]:
        """Return what ip(8) must report. read: the interface's files."""
        modelled = self.model.all[unit]
        return {
            "mtu": int(modelled.values["mtu"]),
            "up": modelled.values["up"] == "1",
            "queue": int(modelled.values["queue"]),
            "promisc": modelled.values["promisc"] == "1",
            "persist": modelled.values["persist"] == "1",
            "address": read["tap/address"],
            "index": int(read["tap/index"]),
            "inets": modelled.inets,
            "no carrier": modelled.values["carrier"] == "open" and modelled.values["up"] == "1",
        }

    @staticmethod
    def seen(link: dict[str, Any]) -> dict[str, Any]:
        """Return, in the form of expected(), what ip(8) reports."""
        return {
            "mtu": link["mtu"],
            "up": "UP" in link["flags"],
            "queue": link["txqlen"],
            "promisc": "PROMISC" in link["flags"],
            "persist": bool(link["linkinfo"]["info_data"]["persist"]),
            "address": link["address"],
            "index": link["ifindex"],
            "inets": {f"{row['local']}/{row['prefixlen']}" for row in link["addr_info"]},
            "no carrier": "NO-CARRIER" in link["flags"],
        }

    def teardown(self) -> None:
        """Recreate the state from the text of ctl, then destroy all."""
        state = self.mount.read("ctl")
        self._destroy_all()
        assert self.mount.read("ctl") == ""
        assert self.mount.links() == ["lo"]
        if state:
            self.mount.ctl(state)
        lines = [line for line in state.splitlines() if not line.startswith("#")]
        assert [line for line in self.mount.read("ctl").splitlines() if not line.startswith("#")] == lines
        self._destroy_all()

    def _destroy_all(self) -> None:
        for name in self.mount.units():
            self.mount.ctl(f"destroy {name}")


@pytest.mark.timeout(300)
def test_any_sequence(mount: Mount) -> None:
    machine: type[Verbs] = type("Machine", (Verbs,), {"mount": mount})
    few = settings(
        max_examples=10,
        stateful_step_count=15,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # no shrinking: steps are slow, and fifteen of them are easily read
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few)
    until(lambda: mount.links() == ["lo"], "nothing is left")
