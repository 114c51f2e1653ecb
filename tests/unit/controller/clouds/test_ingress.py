"""Who is let in to rented servers: what a user gives, or this machine's address as services on loopback tell it."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from benchctl.clouds import ingress
from benchctl.clouds.ingress import ingress_for, parse_ingress
from benchctl.errors import BenchctlError, UsageError
from lab.http_faults import Manner, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.http_faults import Server

NOBODY = "http://127.0.0.1:9/"
"""Where nobody listens."""


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.7/32\n", "203.0.113.7/32"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7/29", "203.0.113.0/29"),
    ],
)
def test_an_address_or_a_network_is_read_as_a_network(given: str, read: str) -> None:
    assert parse_ingress(given) == read


@pytest.mark.parametrize("given", ["", "here", "203.0.113", "203.0.113.7/33", "203.0.113.300", "2001:db8::1"])
def test_what_is_no_network_is_one_sentence_with_its_mend(given: str) -> None:
    with pytest.raises(UsageError, match=f"'{given}' is no IPv4 network") as caught:
        parse_ingress(given)
    assert "203.0.113.7/32" in caught.value.mend


@pytest.mark.parametrize("given", ["0.0.0.0/0", "203.0.113.7/0"])
def test_everybody_is_let_in_nowhere(given: str) -> None:
    with pytest.raises(UsageError, match="would let everybody try"):
        parse_ingress(given)
    with pytest.raises(UsageError, match="would let everybody try"):
        ingress_for(given)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Two services that tell the caller's address; the test says what they answer."""
    monkeypatch.setenv("no_proxy", "*")
    with server() as running:
        monkeypatch.setattr(ingress, "SERVICES", (running.url("/first"), running.url("/second")))
        ingress._own.cache_clear()
        yield running
        ingress._own.cache_clear()


def test_the_own_address_is_asked_for_once(services: Server) -> None:
    services.serve("/first", b"203.0.113.7\n")
    asked = ingress_for("")
    assert services.requests() == [], "a sweep of the lab, or a plan, asks nobody"
    assert {asked("gcp"), asked("hetzner"), ingress_for("")("gcp")} == {"203.0.113.7/32"}
    assert [one.path for one in services.requests()] == ["/first"]


def test_nobody_is_asked_where_the_address_is_given_or_is_not_needed(services: Server) -> None:
    assert ingress_for("203.0.113.7")("gcp") == "203.0.113.7/32"
    assert ingress_for("")("lab") == "127.0.0.0/8"
    assert services.requests() == []


@pytest.mark.parametrize(
    "answer",
    [b"<html>Please log in</html>", b"2001:db8::1\n", b"", b"\xff\xfe", b"0.0.0.0/0", b"203.0.113.0/24"],
    ids=["garbage", "ipv6", "nothing", "no-text", "everybody", "many"],
)
def test_an_answer_that_is_no_single_address_is_not_believed(services: Server, answer: bytes) -> None:
    services.serve("/first", answer)
    services.serve("/second", b"203.0.113.7")
    assert ingress_for("")("gcp") == "203.0.113.7/32"


@pytest.mark.parametrize("manner", [Manner(status=503), Manner(chunked=True, cut_after=3)], ids=["down", "cut"])
def test_where_one_service_fails_the_next_is_asked(services: Server, manner: Manner) -> None:
    services.serve("/first", b"203.0.113.99", manner=manner)
    services.serve("/second", b"203.0.113.7")
    assert ingress_for("")("gcp") == "203.0.113.7/32"


def test_a_service_that_does_not_speak_http_is_passed_over(services: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    services.serve("/second", b"203.0.113.7")
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        monkeypatch.setattr(
            ingress, "SERVICES", (f"http://127.0.0.1:{listening.getsockname()[1]}/", services.url("/second"))
        )
        greeting = threading.Thread(target=_greet, args=(listening,))
        greeting.start()
        assert ingress_for("")("gcp") == "203.0.113.7/32"
        greeting.join()


def _greet(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_where_nobody_tells_it_that_is_one_sentence_with_its_mend(
    services: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress, "SERVICES", (NOBODY, services.url("/second")))
    asked = ingress_for("")
    with pytest.raises(BenchctlError, match=r"own address could not be found out: HTTP Error 404") as caught:
        asked("gcp")
    assert "--ingress 203.0.113.7/32" in caught.value.mend
    services.serve("/second", b"203.0.113.7")
    assert asked("gcp") == "203.0.113.7/32", "it is asked for again: what failed is not kept"
