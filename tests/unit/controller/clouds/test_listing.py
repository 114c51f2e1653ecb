"""One list of what a vendor has, for all who want to know: never older than they accept, and no oftener asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from benchctl.clouds.cloud import CloudError, PartialListError
from benchctl.clouds.rental import Listing
from benchctl.refusals import Refusal
from scripted_cloud import refused, thing

if TYPE_CHECKING:
    from benchctl.clouds.cloud import Client


class Vendor:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def find(self) -> list[Any]:
        self.asked += 1
        return []


def test_a_list_is_asked_for_again_only_when_it_is_older_than_accepted() -> None:
    """A hundred servers out of reach are looked up in one list; who needs the present gets the present."""
    vendor, now = Vendor(), [100.0]
    listing = Listing(cast("Client", vendor), clock=lambda: now[0])
    for _ in range(100):
        listing.fresh(5.0)
    assert vendor.asked == 1
    now[0] += 4.0
    listing.fresh(5.0)
    assert vendor.asked == 1
    listing.fresh()
    assert vendor.asked == 2
    now[0] += 6.0
    listing.fresh(5.0)
    assert vendor.asked == 3


def test_what_is_looked_for_in_a_region_that_answered_is_known() -> None:
    """A region that did not answer leaves open what is there, and what may be anywhere."""
    found = thing("benchctl-one", region="us-east-1")

    class Partial(Vendor):
        def find(self) -> list[Any]:
            raise PartialListError([found], {"eu-west-1": refused("503", Refusal.OUTAGE)}, answered=True)

    listing = Listing(cast("Client", Partial()))
    assert listing.fresh(region="us-east-1") == [found]
    for where in ("eu-west-1", ""):
        with pytest.raises(CloudError, match="503"):
            listing.fresh(region=where)
