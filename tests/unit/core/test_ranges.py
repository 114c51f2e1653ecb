"""Who fetches which bytes."""

from __future__ import annotations

import random

from llama_bench_core.ranges import Ranges


def test_one_connection_takes_the_whole_file() -> None:
    """With one connection there is one request."""
    ranges = Ranges(1000, connections=1, chunk_bytes=10)
    lease = ranges.take()
    assert lease is not None
    assert (lease.position, lease.end) == (0, 1000)


def test_several_connections_share_a_small_file_evenly() -> None:
    """A file smaller than the chunks is divided by the number of connections."""
    ranges = Ranges(1000, connections=4, chunk_bytes=10_000, split_bytes=10)
    taken = [ranges.take() for _ in range(4)]
    assert [(one.position, one.end) for one in taken if one] == [(0, 250), (250, 500), (500, 750), (750, 1000)]


def test_an_idle_connection_takes_the_second_half_of_the_longest_rest() -> None:
    """One slow connection does not hold up the end of a file."""
    ranges = Ranges(1000, connections=2, chunk_bytes=500, split_bytes=10)
    slow, fast = ranges.take(), ranges.take()
    assert slow is not None
    assert fast is not None
    ranges.advance(slow, 100)
    ranges.advance(fast, 500)
    ranges.give_back(fast)
    helper = ranges.take()
    assert helper is not None
    assert (helper.position, helper.end, slow.end) == (300, 500, 300)


def test_what_is_nearly_there_is_not_divided() -> None:
    """A request for a few bytes would take longer than waiting for them."""
    ranges = Ranges(100, connections=2, chunk_bytes=100, split_bytes=60)
    assert ranges.take() is not None
    assert ranges.take() is None


def test_bytes_beyond_a_shrunken_lease_are_not_counted_twice() -> None:
    """What another connection took over is its own to count."""
    ranges = Ranges(100, connections=2, chunk_bytes=100, split_bytes=10)
    first = ranges.take()
    assert first is not None
    second = ranges.take()
    assert second is not None
    assert ranges.advance(first, 80) == 50
    assert ranges.bytes_there == 50


def test_a_returned_lease_is_missing_again_from_where_it_came_to() -> None:
    """After a cut only the rest is asked for."""
    ranges = Ranges(100, connections=1)
    lease = ranges.take()
    assert lease is not None
    ranges.advance(lease, 30)
    ranges.give_back(lease)
    assert ranges.missing() == [(30, 100)]
    assert (ranges.prefix, ranges.bytes_there, ranges.complete) == (30, 30, False)


def test_what_can_not_be_had_in_pieces_is_missing_from_the_start() -> None:
    """Without ranges a cut costs everything."""
    ranges = Ranges(100, divisible=False)
    lease = ranges.take()
    assert lease is not None
    ranges.advance(lease, 30)
    ranges.give_back(lease)
    assert ranges.missing() == [(0, 100)]


def test_a_file_of_unknown_length_ends_where_the_server_says() -> None:
    """Its size is known when it is there."""
    ranges = Ranges(None)
    lease = ranges.take()
    assert lease is not None
    assert not ranges.divisible
    ranges.advance(lease, 70)
    assert ranges.bytes_there == 70
    ranges.ends_here(lease)
    ranges.give_back(lease)
    assert (ranges.total, ranges.complete, ranges.prefix) == (70, True, 70)


def test_every_byte_is_fetched_whatever_the_connections_do() -> None:
    """In a thousand random courses, with failures, no byte is left out and the account stays true."""
    for seed in range(1000):
        chance = random.Random(seed)  # noqa: S311 - the same courses in every run
        size = chance.randint(1, 400)
        ranges = Ranges(
            size, connections=chance.randint(1, 5), chunk_bytes=chance.randint(1, 90), split_bytes=chance.randint(1, 40)
        )
        there = bytearray(size)
        leases = []
        while not ranges.complete:
            lease = ranges.take()
            if lease is not None:
                leases.append(lease)
            one = chance.choice(leases)
            count = chance.randint(0, 60)
            there[one.position : one.position + min(count, one.left)] = b"x" * min(count, one.left)
            ranges.advance(one, count)
            if not one.left or chance.random() < 0.2:
                ranges.give_back(one)
                leases.remove(one)
            assert ranges.bytes_there == there.count(b"x")
            assert ranges.prefix == len(there) - len(there.lstrip(b"x"))
        assert there == b"x" * size
