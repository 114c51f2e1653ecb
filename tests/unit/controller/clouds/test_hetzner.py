"""Hetzner's choices, and its login."""

from __future__ import annotations

from benchctl.clouds.cloud import cloud_of
from benchctl.clouds.hetzner import CLOUD
from emulation.specs import instance_spec, shared_spec


def test_it_is_found_by_both_of_its_names() -> None:
    assert cloud_of("hetzner") is CLOUD
    assert cloud_of("hcloud") is CLOUD


def test_what_is_missing_to_log_in_is_one_sentence() -> None:
    assert "HCLOUD_TOKEN" in CLOUD.login_problem({})
    assert "HCLOUD_TOKEN" in CLOUD.login_problem({"HCLOUD_TOKEN": " "})
    assert CLOUD.login_problem({"HCLOUD_TOKEN": "t"}) == ""


def test_the_engine_gets_the_login_and_nothing_else() -> None:
    assert CLOUD.engine_environment({"HCLOUD_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "s"}) == {"HCLOUD_TOKEN": "t"}


def test_names_are_told_before_and_differ() -> None:
    shared, spec = shared_spec("hetzner"), instance_spec("hetzner", "cx22", "fsn1")
    names = [one.name for one in (*CLOUD.shared_resources(shared), *CLOUD.resources(spec))]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)
    assert CLOUD.shared_scope("fsn1") == CLOUD.shared_scope("ash") == ""
