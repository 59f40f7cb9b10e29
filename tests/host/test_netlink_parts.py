"""A server starts without importing pyroute2 and prometheus_client, and imports only some parts of pyroute2 later.

It needs pyroute2 only for bridges, and leaves out the parts that it does not use.
Other programs can still import all of pyroute2.
"""

import os
import subprocess
import sys

import pytest

PROGRAMS = {
    "a server": "import virtfs.cli.serving, sys; print(*{'pyroute2.netlink', 'prometheus_client'} & {*sys.modules})",
    "a bridge": (
        "from virtfs.host.bridgeinfo import ask_link; from virtfs.host.rtnl import Rtnl; import sys; "
        "ask_link(Rtnl(), 'lo'); assert 'pyroute2.ndb.main' not in sys.modules"
    ),
    "a public name": "import virtfs.host.links; from pyroute2 import IPRoute; IPRoute.__mro__",
    "an attribute": "import virtfs.host.links; import pyroute2; pyroute2.NDB; pyroute2.__version__",
    "a module": "import virtfs.host.links; from pyroute2 import config; config.__path__",
    "the whole before": "from pyroute2 import IPRoute; import virtfs.host.links; import pyroute2; pyroute2.IPRoute",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_loaded(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAMS[name]], env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "")


def test_a_name_it_does_not_have() -> None:
    program = "import virtfs.host.links; from pyroute2 import nonsense"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True)
    assert "ImportError: cannot import name 'nonsense' from 'pyroute2'" in done.stderr
