"""Types for IP addresses, from the standard library's ipaddress."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface  # an address with its prefix length: 10.0.3.1/24
