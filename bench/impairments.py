"""impair: how near what it does comes to what it was told, over a cable between two namespaces."""

import re

from cables import ADDRESS, Carried, cabled
from lab import SUBJECT, Lab, Rate, entering, run

DELAYS = 5, 20  # ms, each way
RATES = 10, 100  # Mbit/s
PINGS = 50
SECONDS = 5  # iperf3 counts in how long its end takes to be told
PAYLOAD, FRAME = 1448, 1448 + 8 + 20 + 14  # bytes of a datagram, and with UDP's, IP's and Ethernet's heads
OFFERED = 1.5  # times the rate


def measure(lab: Lab) -> None:
    """All of it."""
    with cabled(lab) as carried:
        delays = {}
        for delay in DELAYS:
            lab.ctl("uncable 1 2", f"cable 1 2 delay {delay}ms")
            delays[f"{SUBJECT}, delay {delay}ms"] = [_ping(carried) - 2 * delay for _ in range(lab.rounds)]
        lab.within("impair: a ping's time over twice the delay", "ms", delays, 1.0)
        rates = {}
        for rate in RATES:
            lab.ctl("uncable 1 2", f"cable 1 2 rate {rate}mbit limit 50")
            rates[f"{SUBJECT}, rate {rate}mbit"] = [_off(carried, rate) for _ in range(lab.rounds)]
        lab.within(f"impair: what comes of {OFFERED} times the rate, by iperf3 -u, off the rate", "%", rates, 3.0)


def _ping(carried: Carried) -> float:
    """The median in ms."""
    told = run(*entering(carried.near), "ping", "-c", PINGS, "-i", 0.01, ADDRESS[1])
    times = sorted(map(float, re.findall(r"time=([\d.]+)", told)))
    return times[len(times) // 2]


def _off(carried: Carried, rate: int) -> float:
    """Per cent."""
    there = Rate(carried.near, carried.far, ADDRESS[1])
    bits = there.udp(SECONDS, int(OFFERED * rate * 1e6), PAYLOAD) * FRAME / PAYLOAD
    return 100 * (bits / (rate * 1e6) - 1)
