"""What a user finds after an installation, whichever way it was made."""

import os
from pathlib import Path

import virtfs

from .building import run

# Files of an installation, below its prefix. mount.virtfs is beside virtfs, or where mount(8) looks.
FILES = [
    "bin/virtfs",
    "lib/systemd/system/virtfs-metrics@.service",
    "lib/systemd/system/virtfs-metrics@.timer",
    "lib/systemd/system/virtfs@.service",
    "lib/tmpfiles.d/virtfs.conf",
    "share/bash-completion/completions/virtfs",
    "share/fish/vendor_completions.d/virtfs.fish",
    "share/man/man1/virtfs.1",
    "share/man/man5/virtfs.5",
    "share/man/man7/virtfs-recipes.7",
    "share/man/man8/mount.virtfs.8",
    "share/virtfs/prometheus/virtfs.rules.yml",
    "share/virtfs/schema/status.schema.json",
    "share/zsh/site-functions/_virtfs",
]
_MOUNT = "echo create 3 up backlog 1 >ctl; cut -d' ' -f-2 ctl; cat version"


def check(prefix: Path, environment: Path) -> None:
    """Use an installation: the files, the manual, the command, a mount, the Python API.

    prefix: the directory with bin/ and share/. environment: the Python environment, which has a bin/ too
    """
    missing = [name for name in FILES if not (prefix / name).is_file()]
    assert missing == []
    assert (environment / "bin/mount.virtfs").is_file()
    path = f"{prefix}/bin:{os.environ['PATH']}"
    for page in (name.rpartition("/")[2] for name in FILES if "/man/" in name):
        name, _, section = page.rpartition(".")
        found = run(["man", "-w", section, name], Path("/"), PATH=path).strip()
        assert found.startswith(f"{prefix}/share/man/"), found
    assert run(["virtfs", "--version"], Path("/"), PATH=path) == f"virtfs {virtfs.__version__}, compiled loop\n"
    mounted = run(["virtfs", "shell", "sh", "-c", _MOUNT], Path("/"), PATH=path)
    assert mounted == f"create 3\nvirtfs {virtfs.__version__}, compiled loop\n", mounted
    api = "import virtfs; print(virtfs.__file__, virtfs.Mount.__name__, virtfs.aio.__name__)"
    file, *names = run([f"{environment}/bin/python", "-c", api], Path("/")).split()
    assert file.startswith(f"{environment}/lib/")
    assert names == ["Mount", "virtfs.aio"]
