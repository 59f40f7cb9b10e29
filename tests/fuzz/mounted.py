"""Fuzzing of a real mount with random system calls, as root and as the owner of an interface."""

import errno
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from harness.places import DIR
from harness.serving import ENVIRONMENT, Mount

TESTS = Path(__file__).parents[1]
STORM = (sys.executable, "-m", "fuzz.storm")
OWNER = 4001
# What a call on a mount may end with. EIO, ENOMEM, ENOTCONN and ECONNABORTED, for example, would be faults.
KNOWN = (
    frozenset(errno.errorcode.values()) - {"EIO", "ENOMEM", "ENOTCONN", "ECONNABORTED", "ENFILE", "EPROTO", "ESTALE"}
) | {"ok"}
GROWTH = 64 << 10  # KiB; more is a leak


def fuzz(calls: int, seed: int, rounds: int = 4) -> Counter[str]:
    """Make calls on a mount, and return how they ended. AssertionError: a fault was found.

    rounds: the calls are made by this number of programs of each user, one after the other. After the first round, the
    memory of the server may not grow any more.
    """
    ends: Counter[str] = Counter()
    environment = ENVIRONMENT | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    popen: dict[str, Any] = {"stdout": subprocess.PIPE, "env": environment, "cwd": TESTS}
    each = str(calls // rounds // 2)
    mount = Mount("max_virts=8,max_backlog=64,max_queue=256,max_history=1M,capture=1M")
    try:
        mount.ctl(f"create 5 up backlog 8 owner {OWNER}")
        first = 0
        for number in range(rounds):
            programs = [
                mount.start(*STORM, DIR, f"{seed} {number} {uid}", each, uid=uid, **popen) for uid in (0, OWNER)
            ]
            for program in programs:
                said, _ = program.communicate(timeout=60 + calls / 20)
                assert program.returncode == 0, f"seed {seed}: the program ended with {program.returncode}"
                ends.update(json.loads(said))
            assert mount.server.poll() is None, f"seed {seed}: the server has ended:\n{''.join(mount.log)}"
            first = first or resident(mount.server.pid)
        unknown = [end for end in ends if end.split()[-1] not in KNOWN]
        assert not unknown, f"seed {seed}: {unknown}"
        grown = resident(mount.server.pid) - first
        assert grown < GROWTH, f"seed {seed}: memory grew by {grown} KiB"
        assert not [line for line in mount.log if "Traceback" in line], "".join(mount.log)
        mount.read("status.json")
    finally:
        if wrong := mount.stop():
            print("\n".join(wrong), file=sys.stderr)
    return ends


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
