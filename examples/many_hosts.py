#!/usr/bin/env python3
"""Many hosts in one program: each answers ARP and ping on an interface of its own.

    .venv/bin/python examples/many_hosts.py 20          # as root, or after `virtfs shell --`

needs the Python of virtfs, which has trio; after `make install` that is /usr/local/lib/virtfs/bin/python. It starts a
virtfs for itself, pings the hosts 10.7.1.2 to 10.7.20.2, and prints how many frames each has answered. responder.py
does the same for one host, with nothing but the frame file.
"""

import socket
import subprocess
import sys

try:
    import trio

    import virtfs
except ImportError as error:
    sys.exit(f"many_hosts.py: {error}: run it with the Python of virtfs (doc/python.md), such as .venv/bin/python")

from responder import answer


async def host(v: virtfs.Virt, ip: str, answered: dict[virtfs.Virt, int]) -> None:
    """Answer as the host behind an interface until the task is cancelled."""
    mac = bytes.fromhex(v.address.replace(":", ""))
    async with virtfs.aio.open(v) as port:
        async for frame in port:
            if said := answer(frame, mac, socket.inet_aton(ip)):
                await port.send(said)
                answered[v] += 1


async def ping(ip: str) -> None:
    """Ping a host until it has answered three times."""
    await trio.run_process(["ping", "-qc3", "-i0.01", "-w5", ip], stdout=subprocess.DEVNULL)


async def main(count: int) -> None:
    """Start the hosts, and ping them all at once."""
    with virtfs.mount(max_virts=count) as net:
        # Without a number, create() skips the numbers of taps that another mount has.
        hosts = {net.create(up=True, inet=f"10.7.{n}.1/24"): f"10.7.{n}.2" for n in range(1, count + 1)}
        answered = dict.fromkeys(hosts, 0)
        async with trio.open_nursery() as tasks:
            for v, ip in hosts.items():
                tasks.start_soon(host, v, ip, answered)
            async with trio.open_nursery() as pings:
                for ip in hosts.values():
                    pings.start_soon(ping, ip)
            tasks.cancel_scope.cancel()
        for v, ip in hosts.items():
            print(f"{v} answers {ip}: {answered[v]} frames")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: many_hosts.py COUNT")
    try:
        trio.run(main, int(sys.argv[1]))
    except OSError as error:
        sys.exit(f"many_hosts.py: {error}")
