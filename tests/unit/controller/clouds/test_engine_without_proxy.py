"""The engine is on this machine, and no proxy is asked for it."""

from __future__ import annotations

import pytest
from benchctl.clouds.stacks import _engine_without_proxy


@pytest.mark.parametrize(
    ("environment", "hosts"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"no_proxy": "intranet.example,127.0.0.1"}, "intranet.example,127.0.0.1,localhost"),
        ({"no_proxy": "a.example", "no_grpc_proxy": "b.example"}, "b.example,127.0.0.1,localhost"),
    ],
)
def test_what_the_user_leaves_out_stays_left_out(environment: dict[str, str], hosts: str) -> None:
    """Ours comes to theirs, and a second time changes nothing."""
    once = _engine_without_proxy(environment)
    assert once == {"no_grpc_proxy": hosts}
    assert _engine_without_proxy({**environment, **once}) == once
