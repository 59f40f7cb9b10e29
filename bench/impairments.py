"""The accuracy of impair: its delay and its rate, measured over a cable between two namespaces."""

import re

from cables import ADDRESS, Carried, cabled
from lab import SUBJECT, Lab, Rate, entering, run

DELAYS = 5, 20  # ms, in each direction
RATES = 10, 100  # Mbit/s
PINGS = 50
SECONDS = 5  # long, because iperf3's rate includes the time in which its receiver learns of the end
PAYLOAD, FRAME = 1448, 1448 + 8 + 20 + 14  # bytes of a datagram without, and with, its UDP, IP and Ethernet headers
OFFERED = 1.5  # the rate at which iperf3 sends, as a multiple of the rate under test


def measure(lab: Lab) -> None:
    """Measure and print the part "impair"."""
    with cabled(lab) as carried:
        delays = {}
        for delay in DELAYS:
            lab.ctl("uncable 1 2", f"cable 1 2 delay {delay}ms")
            delays[f"{SUBJECT}, delay {delay}ms"] = [_ping(carried) - 2 * delay for _ in range(lab.rounds)]
        lab.within("impair: round-trip time of a ping minus twice the delay", "ms", delays, 1.0)
        rates = {}
        for rate in RATES:
            lab.ctl("uncable 1 2", f"cable 1 2 rate {rate}mbit limit 50")
            rates[f"{SUBJECT}, rate {rate}mbit"] = [_off(carried, rate) for _ in range(lab.rounds)]
        lab.within(f"impair: error of the rate, with iperf3 -u sending {OFFERED} times as much", "%", rates, 3.0)


def _ping(carried: Carried) -> float:
    """Return the median round-trip time in ms."""
    told = run(*entering(carried.near), "ping", "-c", PINGS, "-i", 0.01, ADDRESS[1])
    times = sorted(map(float, re.findall(r"time=([\d.]+)", told)))
    return times[len(times) // 2]


def _off(carried: Carried, rate: int) -> float:
    """Return the error of the rate received, in percent of `rate` (Mbit/s)."""
    there = Rate(carried.near, carried.far, ADDRESS[1])
    bits = there.udp(SECONDS, int(OFFERED * rate * 1e6), PAYLOAD) * FRAME / PAYLOAD
    return 100 * (bits / (rate * 1e6) - 1)
