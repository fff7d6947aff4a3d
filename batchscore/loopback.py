"""Which hosts are this one: what listens there, nobody on the network reaches."""

from __future__ import annotations

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether the name or address is loopback. Other names are not looked up: what they mean may change."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
