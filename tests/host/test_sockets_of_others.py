"""A cable's socket at a path where another user has left a socket, as in /tmp."""

import sys

import pytest
from harness.running import run
from harness.users import HIS_VIRTFS, as_user

# Root binds a socket and ends, so the socket is dead. /mnt is a tmpfs of the test, with the mode of /tmp.
_LEAVE = f"""
chmod 1777 /mnt
{sys.executable} -c 'import socket; socket.socket(socket.AF_UNIX).bind("/mnt/wire")'
chmod %s /mnt/wire
"""
_LISTEN = """
from virtfs.core.errors import VirtError
from virtfs.core.socketname import SocketName
from virtfs.host.sockets import Rights, listen
try:
    listen(SocketName("unix-listen", path="/mnt/wire"), Rights(54321, 54321, 0o600))
except VirtError as e:
    print(e.strerror)
"""


@pytest.mark.parametrize("mode", ["666", "600"])
def test_a_dead_socket_of_another_user_is_said_to_be_his(mode: str) -> None:
    done = run([*as_user(before=_LEAVE % mode), HIS_VIRTFS[0], "-c", _LISTEN])
    sentence = 'there is a socket of another user at "/mnt/wire": that user must remove it, or choose another path\n'
    assert (done.stdout, done.stderr) == (sentence, "")
