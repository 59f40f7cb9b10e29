"""The beginning of a pcapng file as virtfs writes it, and frames to store in it."""

from virtfs.core import pcapng

NOW = 1_700_000_000_123_456_789
MAC = bytes.fromhex("b20a5a0b0e03")
ARP = bytes.fromhex("ffffffffffff b20a5a0b0e03 0806  0001 0800 06 04 0001  b20a5a0b0e03 0a000301 000000000000 0a000302")
FRAMES = [ARP, ARP + b"\0", ARP + bytes(2), ARP + bytes(3), ARP.ljust(60, b"\0"), ARP.ljust(1514, b"\xaa")]
HEADER = pcapng.section_header("x86_64", "Linux 6.1", "virtfs 1.0")
VIRT3 = pcapng.interface_description("virt3", "the lab's Ärger", MAC, 0, "arp or icmp")
