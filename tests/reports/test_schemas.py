"""What programs read: status.json and `virtfs ls --json` against their schemas, metrics against Prometheus' rules.

All texts are from one mount with everything in it. So the schemas here forbid keys that they do not describe, which
they allow to later versions.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
from harness import tools
from harness.fixtures import Alone
from harness.places import DIR, finished
from harness.serving import ENVIRONMENT, PROJECT, Mount
from jsonschema import Draft202012Validator, ValidationError

SCHEMAS = PROJECT / "doc/schema"
PROMETHEUS = PROJECT / "examples/prometheus"
Json = dict[str, Any]

_EVERYTHING = """\
create 3 up inet 10.0.3.1/24 impair delay 5ms loss 1% reorder 25%
create 4 up inet6 fe80::4/64 owner 12345 group 12345 history 64K netns far description the far end
create 5 up carrier off pace 1.5 backlog 3 filter arp
create 6
create bridge0 up inet 10.0.5.1/24 add virt5 static virt5 02:00:00:00:00:05
cable 3 4 delay 1ms duplicate 1%
cable 6 tcp-listen:127.0.0.1:7777
"""


class Seen(NamedTuple):
    """Texts of the mount with everything."""

    status: str
    ls: str
    metrics: str
    served: str  # the answer of examples/prometheus/serve.sh
    textfile: str  # the file that examples/prometheus/textfile.sh writes


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    mount = Mount(f"state={tmp_path_factory.mktemp('state')}/state")
    mount.sh("ip netns add far")
    for line in _EVERYTHING.splitlines():
        mount.ctl(line)
    ls = mount.sh(f"PYTHONPATH={PROJECT} {sys.executable} -m virtfs ls --json")
    served = mount.sh(f"printf 'GET /metrics HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n' | {PROMETHEUS}/serve.sh /mnt/virt")
    collected = tmp_path_factory.mktemp("collector")
    mount.sh(f"{PROMETHEUS}/textfile.sh /mnt/virt {collected}")
    collected /= "virtfs-mnt-virt.prom"
    texts = Seen(mount.read("status.json"), ls, mount.read("metrics"), served, collected.read_text())
    mount.ctl("destroy bridge0")
    for unit in (6, 5, 4, 3):
        mount.ctl(f"destroy {unit}")
    mount.sh("ip netns delete far")
    yield texts
    assert mount.stop() == []


def schema(name: str) -> Json:
    read: Json = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return read


def closed(part: Any) -> Any:
    """Return a schema that forbids the keys that it does not describe."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    inside = {key: closed(value) for key, value in part.items()}
    return inside | {"additionalProperties": False} if isinstance(part.get("properties"), dict) else inside


def validate(text: str, name: str) -> None:
    """Check a text strictly. ValidationError: it differs from the schema."""
    Draft202012Validator(closed(schema(name))).validate(json.loads(text))


@pytest.mark.parametrize("name", ["status", "ls"])
def test_a_schema_is_valid(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_the_schema_of_ls_contains_that_of_the_status() -> None:
    """So a validator needs only the one file."""
    status = schema("status")
    contained = {"status": {key: value for key, value in status.items() if key not in ("$schema", "$defs")}}
    text = json.dumps({**schema("ls"), "$defs": contained | status["$defs"]}, indent=2, ensure_ascii=False)
    assert (SCHEMAS / "ls.schema.json").read_text() == f"{text}\n", "write this text into the file"


def test_the_status(seen: Seen) -> None:
    validate(seen.status, "status")
    told = json.loads(seen.status)
    lists = [told["virts"], told["bridges"], told["cables"], told["bridges"][0]["members"]]
    assert [len(one) for one in lists] == [4, 1, 2, 1]
    assert told["bridges"][0]["addresses"]
    assert told["cables"][1]["socket"]["state"] == "listening"
    assert told["state"]["saved"] in (True, False)


def test_ls(seen: Seen) -> None:
    validate(seen.ls, "ls")
    jsonschema.validate(json.loads(seen.ls), schema("ls"))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"mtu": 1500', '"mtu": "1500"'), ('"virts"', '"interfaces"'), ('"carrier": "off"', '"carrier": "of"')],
)
def test_a_change_of_the_format_would_be_seen(seen: Seen, old: str, new: str) -> None:
    assert old in seen.status
    with pytest.raises(ValidationError):
        validate(seen.status.replace(old, new), "status")


def promtool(*words: str, text: str | None = None) -> tuple[int, str]:
    """Run promtool, and return its status and everything that it printed. tools/setup puts it into .venv/bin."""
    beside = Path(sys.executable).with_name("promtool")
    program = str(beside) if beside.exists() else tools.need("promtool")
    done = subprocess.run(
        [program, *words], input=text, cwd=PROMETHEUS, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout


def test_promtool_has_nothing_to_say_about_the_metrics(seen: Seen) -> None:
    for what in (
        "virtfs_cable_connected",
        "virtfs_state_saved",
        'virtfs_rx_lost_total{mount="/mnt/virt",virt="virt3"}',
    ):
        assert what in seen.metrics
    assert promtool("check", "metrics", text=f"{seen.metrics}\n") == (0, "")


def test_the_example_serves_them_to_prometheus(seen: Seen) -> None:
    head, _, body = seen.served.partition("\n\n")  # subprocess has read each \r\n as \n
    assert head.splitlines()[0] == "HTTP/1.0 200 OK"
    assert {line.split(" ")[0].partition("{")[0] for line in body.splitlines() if not line.startswith("#")} == names(
        seen
    )
    script = f"{PROMETHEUS}/serve.sh"
    refused = subprocess.run([script, "/nonexistent"], input="\r\n", capture_output=True, text=True, env=ENVIRONMENT)
    assert refused.stdout.startswith("HTTP/1.0 503 ")


def textfile(mount: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run examples/prometheus/textfile.sh."""
    words = [f"{PROMETHEUS}/textfile.sh", mount, str(directory)]
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)


def test_the_textfile_collector_gets_whole_files_of_mounts_that_answer(tmp_path: Path) -> None:
    """A directory stands for a mount: the script only reads the file metrics in it."""
    directory, first, second = tmp_path / "collector", tmp_path / "lab-a", tmp_path / "lab/a"
    directory.mkdir()
    for mount in (first, second):
        mount.mkdir(parents=True)
        (mount / "metrics").write_text(f'virtfs_info{{mount="{mount}"}} 1\n')
        assert textfile(f"{mount}/", directory).returncode == 0
    files = {path: path.read_text() for path in directory.iterdir()}
    assert sorted(files.values()) == sorted((mount / "metrics").read_text() for mount in (first, second))
    if shutil.which("systemd-escape"):  # as the instance of the timer
        assert {path.name for path in files} == {
            f"virtfs-{tools.run('systemd-escape', '--path', mount).strip()}.prom" for mount in (first, second)
        }
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    (first / "metrics").unlink()
    done = textfile(str(first), directory)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"virtfs: there is no virtfs at {first}\n")
    assert [path.read_text() for path in directory.iterdir()] == [(second / "metrics").read_text()]


def test_the_textfile_collector_fails_only_without_a_mount(alone: Alone, tmp_path: Path) -> None:
    """The alert VirtfsGone reports a mount whose server was killed. A mistyped directory has no alert."""
    mount, file = alone(), tmp_path / "virtfs-mnt-virt.prom"

    def textfile(directory: str) -> tuple[int, str]:
        program = mount.start(f"{PROMETHEUS}/textfile.sh", directory, str(tmp_path), stderr=subprocess.PIPE)
        _, complaint = finished(program)
        return program.returncode, complaint

    assert textfile("/mnt/virt") == (0, "")
    assert file.exists()
    assert textfile("/mnt/vrit") == (1, "virtfs: there is no virtfs at /mnt/vrit\n")
    mount.server.kill()
    mount.server.wait()
    mount.end_programs()
    assert textfile("/mnt/virt/") == (0, "")
    assert not file.exists()
    subprocess.run(mount.command("umount", "--lazy", DIR), check=True)
    assert textfile("/mnt/virt") == (1, "virtfs: there is no virtfs at /mnt/virt\n")


def test_a_textfile_follows_no_link_of_the_directorys_owner(tmp_path: Path) -> None:
    directory, mount, victim = tmp_path / "collector", tmp_path / "lab", tmp_path / "victim"
    for one in (directory, mount):
        one.mkdir()
    (mount / "metrics").write_text("virtfs_info 1\n")
    victim.write_text("mine\n")
    assert textfile(str(mount), directory).returncode == 0
    (file,) = directory.iterdir()
    for link in (file, file.with_name(f"{file.name}.new")):
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
    assert textfile(str(mount), directory).returncode == 0
    assert victim.read_text() == "mine\n"
    assert list(directory.iterdir()) == [file]
    assert file.read_text() == "virtfs_info 1\n"


def test_the_textfile_of_a_mount_is_served_to_prometheus(seen: Seen) -> None:
    assert promtool("check", "metrics", text=seen.textfile) == (0, "")
    samples = re.findall(r"^(\w+)", seen.textfile, re.MULTILINE)
    assert set(samples) == names(seen)


def test_a_missing_directory_of_the_collector_is_named(tmp_path: Path) -> None:
    done = textfile("/mnt/virt", tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"virtfs: there is no directory {tmp_path}/none")


def test_the_manual_starts_the_timer_and_names_its_script() -> None:
    page = (PROJECT / "man/virtfs.5").read_text()
    timer, script = "virtfs-metrics@.timer", "/share/virtfs/prometheus/textfile.sh"
    assert (PROJECT / "systemd" / timer).is_file()
    assert f"systemctl enable --now {timer.replace('@', '@mnt-virt')}\n" in page
    unit = (PROJECT / "systemd/virtfs-metrics@.service").read_text()
    assert re.search(rf"^ExecStart=/usr/local{script} ", unit, re.MULTILINE)
    (line,) = re.findall(rf"^\* \* \* \* \* root /usr/local{script} (.*)$", page, re.MULTILINE)
    assert line == "/mnt/virt"
    by_default = re.findall(r"/var/lib/[\w/-]*node-exporter", (PROMETHEUS / "textfile.sh").read_text() + unit + page)
    assert len(by_default) > 3
    assert set(by_default) == {"/var/lib/prometheus/node-exporter"}


def names(seen: Seen) -> set[str]:
    """Return the names of the samples of the mount."""
    return set(re.findall(r"^(\w+)", seen.metrics, re.MULTILINE))


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "virtfs.rules.yml"),
        ("test", "rules", "virtfs.rules.test.yml"),
    ],
    ids=["config", "rules", "alerts"],
)
def test_promtool_accepts_the_example(words: tuple[str, ...]) -> None:
    status, said = promtool(*words)
    assert status == 0, said


def test_every_alert_names_its_machine() -> None:
    """A notification shows the summary; the same mount and interface may exist on several machines."""
    alerts = re.split(r"^ +- alert: ", (PROMETHEUS / "virtfs.rules.yml").read_text(), flags=re.MULTILINE)[1:]
    summaries = {alert.split()[0]: re.findall(r"summary:(.*?)description:", alert, re.DOTALL) for alert in alerts}
    assert len(summaries) > 10
    assert [name for name, (summary,) in summaries.items() if "{{ $labels.instance }}" not in summary] == []


def expressions() -> list[str]:
    """Return the expressions of the dashboard, with values for Grafana's variables."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [
        expr.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$mount", ".*").replace("$virt", ".*")
        for expr in found
    ]


def dashboard() -> Json:
    read: Json = json.loads((PROMETHEUS / "dashboard.json").read_text())
    return read


def test_the_dashboards_expressions_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML too
    status, said = promtool("check", "rules", str(file))
    assert status == 0, said
    assert f"{len(rules)} rules found" in said


def test_the_dashboards_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        own = {(x, y) for x in columns for y in rows}
        assert not own & cells, panel["title"]
        cells |= own
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_rules_and_dashboard_use_metrics_that_exist(seen: Seen) -> None:
    used = set(re.findall(r"\bvirtfs_\w+", (PROMETHEUS / "virtfs.rules.yml").read_text() + "".join(expressions())))
    assert used <= names(seen)
    assert {"virtfs_rx_dropped_total", "virtfs_cable_dropped_total", "virtfs_memory_bytes"} <= used
    shown = set(re.findall(r"\bvirtfs_\w+", "".join(expressions())))
    counted = {name for name in names(seen) if name.endswith("_total")}
    assert counted <= shown, "the dashboard shows every counter"
