"""Which hosts are this machine alone."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, reached by no other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
