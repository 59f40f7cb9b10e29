"""The sockets behind fd: few of them exist at a time."""

import socket
from pathlib import Path
from typing import Any, cast

from harness.in_trio import in_trio

from virtfs.core.ids import Unit
from virtfs.core.memory import Memory
from virtfs.core.virt import HostEnd, Virt
from virtfs.daemon.loan_sockets import DOORS, LoanSockets

HOST = HostEnd("tap", 7, True, 1500, bytes(6), True, 256)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        return connection.connect_ex(str(path)) == 0


@in_trio
async def test_the_least_recently_used_socket_makes_room(tmp_path: Path) -> None:
    """A socket that was removed is made again."""
    nobody = cast(Any, None)
    sockets = LoanSockets(tmp_path, nobody, nobody, Memory(), nobody, lambda work, name: None)
    virts = [Virt(Unit(number), bytes(6), HOST) for number in range(DOORS + 2)]
    for virt in virts:
        sockets.listen(virt)
        sockets.listen(virts[0])
    assert len(list(tmp_path.iterdir())) == DOORS
    assert [connects(sockets.path(virt)) for virt in (virts[0], virts[1], virts[2], virts[-1])] == [
        True, False, False, True
    ]  # fmt: skip
    sockets.path(virts[0]).unlink()
    sockets.listen(virts[0])
    assert connects(sockets.path(virts[0])), "a socket that was removed is made again"
    for virt in virts:
        sockets.close(virt)
    assert list(tmp_path.iterdir()) == []
