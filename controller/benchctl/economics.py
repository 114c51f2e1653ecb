"""What a measured speed means in time and money, for requests of a given size. Pure; formulas are in docs/answers.md.

A measurement is a single stream: one request at a time, nothing batched. All figures here are of that stream.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86400.0
HOURS_PER_MONTH = 730.0
"""Hours of a month, as clouds reckon: 365 days x 24 hours / 12."""

DAYS_PER_MONTH = HOURS_PER_MONTH / 24


class Basis(StrEnum):
    """Where the speed at a length comes from."""

    MEASURED = "measured"
    INTERPOLATED = "interpolated"
    BEYOND = "beyond"


@dataclass(frozen=True)
class Reading:
    """The speed at one length.

    Attributes:
        tokens: the length asked for.
        tokens_per_second: the speed there.
        basis: ``measured`` at this very length; ``interpolated`` between the two lengths around it; ``beyond`` the
            lengths that were measured, where the speed at the nearest one stands in for an unknown, mostly lower one.
        nearest_tokens: the measured length that stands nearest.
    """

    tokens: int
    tokens_per_second: float
    basis: Basis
    nearest_tokens: int


def speed_at(measured: Mapping[int, float], tokens: int) -> Reading | None:
    """The speed at ``tokens``, from speeds at other lengths; nothing where there is none.

    Between two lengths both axes are logarithmic: speeds follow powers of the length over short stretches (a prompt
    of 16 doesn't fill the machine, attention slows one of 16384). Beyond the measured lengths nothing is extrapolated:
    the nearest speed is given, and says so.

    Args:
        measured: tokens per second by number of tokens; both greater than 0.
        tokens: the length asked for.
    """
    if not measured:
        return None
    lengths = sorted(measured)
    if tokens in measured:
        return Reading(tokens, measured[tokens], Basis.MEASURED, tokens)
    place = bisect_left(lengths, tokens)
    if place in (0, len(lengths)):
        nearest = lengths[0] if place == 0 else lengths[-1]
        return Reading(tokens, measured[nearest], Basis.BEYOND, nearest)
    low, high = lengths[place - 1], lengths[place]
    share = math.log(tokens / low) / math.log(high / low)
    speed = measured[low] ** (1 - share) * measured[high] ** share
    return Reading(tokens, speed, Basis.INTERPOLATED, low if share < 0.5 else high)


@dataclass(frozen=True)
class Workload:
    """The requests that a server is to answer.

    Attributes:
        tokens_in: length of a prompt.
        tokens_out: tokens generated for it.
        requests_per_day: how many of them; nothing when only the price of tokens is asked for.
        utilisation: share of the time in which a server that is paid for also works, over 0 and at most 1. 1 is a
            bound: it needs requests that queue up without a gap, day and night.
    """

    tokens_in: int
    tokens_out: int
    requests_per_day: float | None = None
    utilisation: float = 1.0


@dataclass(frozen=True)
class Economics:
    """What a workload takes and costs on one type of server.

    Attributes:
        time_to_first_token_seconds: processing the prompt, the model being loaded and nobody waiting before it.
        request_seconds: the whole request: that, and generating its tokens.
        requests_per_day_per_server: what one server answers a day, one request after the other, at the utilisation.
        servers: how many it takes; nothing without ``requests_per_day``.
        busy_share: share of the time in which these work; nothing without ``requests_per_day``.
        cost_per_month_per_server: 730 hours of one server.
        cost_per_month: 730 hours of all of them; nothing without ``requests_per_day``.
        cost_per_million_tokens_in: of prompt tokens alone, at the utilisation.
        cost_per_million_tokens_out: of generated tokens alone, at the utilisation.
        cost_per_million_tokens: of both in the workload's proportion, at the utilisation.
        cost_per_million_tokens_as_used: the month's cost over the month's tokens: what whole servers really come to;
            nothing without ``requests_per_day``.
    """

    time_to_first_token_seconds: float
    request_seconds: float
    requests_per_day_per_server: float
    servers: int | None
    busy_share: float | None
    cost_per_month_per_server: float | None
    cost_per_month: float | None
    cost_per_million_tokens_in: float | None
    cost_per_million_tokens_out: float | None
    cost_per_million_tokens: float | None
    cost_per_million_tokens_as_used: float | None


def economics(
    workload: Workload, pp_tokens_per_second: float, tg_tokens_per_second: float, price_per_hour: float | None
) -> Economics:
    """Time and money of a workload on a server.

    Args:
        workload: the requests.
        pp_tokens_per_second: speed of processing prompts of the workload's length.
        tg_tokens_per_second: speed of generating as many tokens as the workload wants.
        price_per_hour: of one server, in any currency; nothing when it is unknown.
    """
    first = workload.tokens_in / pp_tokens_per_second
    request = first + workload.tokens_out / tg_tokens_per_second
    capacity = SECONDS_PER_DAY * workload.utilisation / request
    servers = busy = None
    if workload.requests_per_day is not None:
        # a hair less, so that a load that fills n servers exactly does not ask for one more
        servers = max(1, math.ceil(workload.requests_per_day / capacity - 1e-9))
        busy = workload.requests_per_day * request / (SECONDS_PER_DAY * servers)
    month = None if price_per_hour is None else price_per_hour * HOURS_PER_MONTH
    all_servers = None if month is None or servers is None else month * servers
    as_used = None
    if all_servers is not None and workload.requests_per_day:
        tokens = workload.requests_per_day * DAYS_PER_MONTH * (workload.tokens_in + workload.tokens_out)
        as_used = all_servers / tokens * 1e6
    both = (workload.tokens_in + workload.tokens_out) / request
    return Economics(
        time_to_first_token_seconds=first,
        request_seconds=request,
        requests_per_day_per_server=capacity,
        servers=servers,
        busy_share=busy,
        cost_per_month_per_server=month,
        cost_per_month=all_servers,
        cost_per_million_tokens_in=_per_million(price_per_hour, pp_tokens_per_second, workload.utilisation),
        cost_per_million_tokens_out=_per_million(price_per_hour, tg_tokens_per_second, workload.utilisation),
        cost_per_million_tokens=_per_million(price_per_hour, both, workload.utilisation),
        cost_per_million_tokens_as_used=as_used,
    )


def _per_million(price_per_hour: float | None, tokens_per_second: float, utilisation: float) -> float | None:
    if price_per_hour is None:
        return None
    return price_per_hour / (tokens_per_second * SECONDS_PER_HOUR * utilisation) * 1e6
