"""Which bytes of a file are still missing, and who fetches which of them. Pure; the caller locks.

Connections take chunks from the front, so that the part of the file that is there grows from its start and can be
hashed while the rest is still on its way. When no chunk is left, who is idle takes the second half of what another
connection has still before it, so that one slow connection does not hold up the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN_END = 2**62
"""End of a file whose length the server does not tell."""


class Lease:
    """Bytes ``position`` to ``end`` of the file, that one connection is to fetch.

    Attributes:
        position: the next byte to come.
        end: one after the last; may shrink while the connection is at work, when another takes over its second half.
    """

    def __init__(self, position: int, end: int) -> None:
        self.position = position
        self.end = end

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return self.end - self.position


class Ranges:
    """The missing bytes of one file.

    Args:
        total: size of the file, or ``None`` when the server does not tell.
        missing: pieces ``(start, end)`` that are not there yet; by default the whole file.
        connections: how many connections share the work.
        chunk_bytes: least size of what one of them takes at once.
        split_bytes: what two connections share is not divided into pieces smaller than this.
        divisible: whether the server serves ranges; if not there is one lease, for everything.
    """

    def __init__(
        self,
        total: int | None,
        missing: Iterable[tuple[int, int]] | None = None,
        *,
        connections: int = 1,
        chunk_bytes: int = 1,
        split_bytes: int = 1,
        divisible: bool = True,
    ) -> None:
        self.total = total
        self.divisible = divisible and total is not None
        end = UNKNOWN_END if total is None else total
        pieces = [(0, end)] if missing is None else missing
        self._pool = sorted((start, stop) for start, stop in pieces if start < stop)
        self._leases: list[Lease] = []
        self._split = max(1, split_bytes)
        self._chunk = end
        if self.divisible and connections > 1:
            # Every request costs some round trips, every open chunk delays the hash: 64 chunks balance the two.
            self._chunk = max(1, min(max(chunk_bytes, end // 64), -(-end // connections)))

    def take(self) -> Lease | None:
        """Hand out the next piece, or ``None`` when nothing is left that another connection is not about to get."""
        if self._pool:
            start, end = self._pool.pop(0)
            if end - start > self._chunk + self._split:
                self._pool.insert(0, (start + self._chunk, end))
                end = start + self._chunk
            lease = Lease(start, end)
        else:
            longest = max(self._leases, key=lambda one: one.left, default=None)
            if longest is None or not self.divisible or longest.left < 2 * self._split:
                return None
            middle = longest.position + (longest.left + 1) // 2
            lease = Lease(middle, longest.end)
            longest.end = middle
        self._leases.append(lease)
        return lease

    def advance(self, lease: Lease, count: int) -> int:
        """Note that ``count`` bytes of a lease are there; return how many of them were still the lease's own."""
        taken = min(count, lease.left)
        lease.position += taken
        return taken

    def give_back(self, lease: Lease) -> None:
        """End a lease; what it did not get is missing again (all of the file, where it can't be had in pieces)."""
        if lease in self._leases:
            self._leases.remove(lease)
        start = lease.position if self.divisible else 0
        if lease.left:
            self._pool = sorted([*self._pool, (start, lease.end)])

    def ends_here(self, lease: Lease) -> None:
        """The server ended a file of unknown length: it is as long as what came."""
        self.total = lease.end = lease.position

    def missing(self) -> list[tuple[int, int]]:
        """The pieces that are not there yet, in order, neighbours joined."""
        pieces = sorted([*self._pool, *((one.position, one.end) for one in self._leases if one.left)])
        joined: list[tuple[int, int]] = []
        for start, end in pieces:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return not self._pool and not any(one.left for one in self._leases)

    @property
    def prefix(self) -> int:
        """How many bytes are there without a gap, counted from the start of the file."""
        pieces = self.missing()
        return pieces[0][0] if pieces else self.total or 0

    @property
    def bytes_there(self) -> int:
        """How many bytes are there, wherever in the file."""
        end = UNKNOWN_END if self.total is None else self.total
        return end - sum(stop - start for start, stop in self.missing())
