"""The plan of a sweep that has run, made again from what it was asked for and from what was found on its machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_bench_core.values import CoreError

from benchctl.plan import Machine, Server, make_plan, parse_price
from benchctl.request import SweepRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.plan import JobPlan, Price


def request_of(stored: Mapping[str, Any]) -> SweepRequest | None:
    """The request that the database keeps of a sweep; nothing where there is none that this version can read."""
    try:
        return SweepRequest.from_dict(stored)
    except (CoreError, KeyError, TypeError, ValueError, AttributeError):
        return None  # results that came from elsewhere, or from another version


def plan_again(request: SweepRequest, vendor: str, server: str, facts: Mapping[str, Any] | None) -> JobPlan:
    """What ``plan`` says of one server of a sweep, without earlier measurements and with nothing downloaded yet.

    The limit is that of the day. The expected time is a guess, which may differ from what was said then: earlier
    measurements, and files that were there already, are not known any more.

    Args:
        request: what the sweep was asked for.
        vendor: the vendor.
        server: the server's identifier.
        facts: what was found on the machine; nothing where nobody looked.
    """
    one = Server(vendor, server, server, machine_from(facts))
    return make_plan(request.suite, request.models, [one], weights=request.weights).jobs[0]


def machine_from(facts: Mapping[str, Any] | None) -> Machine | None:
    """What a plan needs of recorded facts."""
    if not facts or not facts.get("memory_bytes"):
        return None
    gpus = [gpu for gpu in facts.get("gpus") or () if isinstance(gpu, dict)]
    return Machine(
        physical_cores=int(facts.get("physical_cores") or 1),
        memory_bytes=int(facts["memory_bytes"]),
        gpu_memory_bytes=sum(int(gpu.get("memory_bytes") or 0) for gpu in gpus),
    )


def price_given(request: SweepRequest | None) -> Price | None:
    """The price that was given with ``--price``."""
    return parse_price(request.price) if request and request.price else None
