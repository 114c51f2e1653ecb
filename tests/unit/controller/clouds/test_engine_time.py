"""How long the engine may take, against what the vendors' programs let one resource take."""

from __future__ import annotations

import importlib

import pytest
from benchctl.clouds.cloud import CLOUDS, cloud_of


def seconds(text: str) -> float:
    """Pulumi's way to write a duration: ``15m``."""
    return float(text.removesuffix("m")) * 60


@pytest.mark.parametrize("vendor", CLOUDS)
def test_no_engine_is_interrupted_while_the_vendor_may_still_answer(vendor: str) -> None:
    """An engine that is cut off in a create loses the vendor's words, and the server is paid for twice."""
    module = importlib.import_module(f"benchctl.clouds.{vendor}")
    limits = [value for name, value in vars(module).items() if name.startswith(("CREATE_TIME", "DELETE_TIME"))]
    assert limits or vendor == "lab"
    for one in limits:
        assert cloud_of(vendor).engine_seconds >= seconds(one) + 300
