"""Which sysctls of the module br_netfilter are on. tests/bridge/test_warnings.py has their effect on frames."""

from pathlib import Path

from virtfs.host.bridge_filter import filtering

ALL = ["iptables", "ip6tables", "arptables"]


def test_only_the_sysctls_that_are_on(tmp_path: Path) -> None:
    assert filtering(tmp_path / "absent") == [], "without the module"
    for name in ALL:
        (tmp_path / f"bridge-nf-call-{name}").write_text("1\n")
    (tmp_path / "bridge-nf-filter-vlan-tagged").write_text("1\n")
    assert filtering(tmp_path) == [f"net.bridge.bridge-nf-call-{name}" for name in ALL]
    (tmp_path / "bridge-nf-call-iptables").write_text("0\n")
    assert filtering(tmp_path) == [f"net.bridge.bridge-nf-call-{name}" for name in ALL[1:]]
