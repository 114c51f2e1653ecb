"""From where rented servers are reached: the one address that their firewalls let in.

A vendor's firewall wants this machine's address as the internet sees it, which a machine behind a router can't know by
itself: it asks over HTTPS, once, and again (:func:`look_again`) when a server can't be reached.
"""

from __future__ import annotations

import contextlib
import ipaddress
import urllib.request
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING

from benchctl.errors import BenchctlError, UsageError
from benchctl.request import LAB

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES = ("https://checkip.amazonaws.com", "https://api.ipify.org")
"""Services that answer with the caller's address as plain text: Amazon's own, and ipify, which is free software."""

_ANSWER_BYTES = 100


def parse_ingress(text: str) -> str:
    """Read a CIDR, or an address, as the CIDR from which SSH is let in.

    Raises:
        UsageError: it is none, or it would let in everybody.
    """
    try:
        network = ipaddress.IPv4Network(text.strip(), strict=False)
    except ValueError as error:
        raise UsageError(f"'{text}' is no IPv4 network.", "Give this machine's address, as 203.0.113.7/32.") from error
    if network.prefixlen == 0:
        raise UsageError("0.0.0.0/0 would let everybody try.", "Give this machine's address, as 203.0.113.7/32.")
    return str(network)


def ingress_for(given: str) -> Callable[[str], str]:
    """The CIDR from which a vendor's servers are reached: as ``given``, or this machine's own address, asked for once.

    Raises (when called):
        BenchctlError: it is not given, and nobody says what it is.
    """
    fixed = parse_ingress(given) if given else ""

    def ingress(vendor: str) -> str:
        if fixed:
            return fixed
        return "127.0.0.0/8" if vendor == LAB else _own()

    return ingress


def look_again() -> None:
    """Ask for this machine's address again, where it was asked for before: a network changes, a line is reconnected.

    Where nobody answers now, what was known is kept.
    """
    if not _own.cache_info().currsize:
        return
    known = _own()
    with contextlib.suppress(BenchctlError):
        if _asked() != known:
            _own.cache_clear()


@cache
def _own() -> str:
    return _asked()


def _asked() -> str:
    trouble = ""
    for service in SERVICES:
        try:
            with urllib.request.urlopen(service, timeout=10) as answer:  # noqa: S310 - the addresses are above
                # an address, no network: a wrong answer must not let in more than one machine
                return f"{ipaddress.IPv4Address(answer.read(_ANSWER_BYTES).decode('ascii', 'replace').strip())}/32"
        except (OSError, HTTPException, ValueError) as error:
            trouble = str(error)
    raise BenchctlError(
        f"This machine's own address could not be found out: {trouble}.",
        "Give it with --ingress, as --ingress 203.0.113.7/32.",
    )
