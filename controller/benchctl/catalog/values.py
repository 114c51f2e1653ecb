"""What was read of a catalogue, before anything of it is in the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

VENDOR_ALIASES = {"hetzner": "hcloud"}
"""What people call a vendor, and what it is called in the database."""


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """One price, as a source lists it.

    Attributes:
        vendor_id: the vendor.
        server: how the vendor's API calls the server type, or Spare Cores' identifier of it.
        region: identifier, API name, name or alias of a region; empty where the source names none.
        zone: identifier or API name of a zone; empty for any.
        allocation: one of :data:`benchctl.db.prices.ALLOCATIONS`.
        price: of one unit.
        currency: ISO 4217 code, or what stands in its place.
        unit: one of :data:`benchctl.db.prices.HOURS`.
        source: where it was read.
        source_date: the day of which the source says that it is the price.
        licence: of the source.
        operating_system: what runs on the server.
        gpu_count: GPUs that the price contains, where the source says so; it must then fit the server.
    """

    vendor_id: str
    server: str
    region: str
    zone: str
    allocation: str
    price: float
    currency: str
    unit: str
    source: str
    source_date: date | None
    licence: str | None
    operating_system: str = "Linux"
    gpu_count: int | None = None


@dataclass(frozen=True, slots=True)
class SetAside:
    """What could not be taken in.

    Attributes:
        where: the file, and its line where it has lines.
        reason: one sentence without the full stop.
        about: vendor and server that it is about, as far as they could be read; their prices are not taken for gone.
        is_rate: whether it is an exchange rate, and not a price.
    """

    where: str
    reason: str
    about: tuple[str, str] | None = None
    is_rate: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class PriceList:
    """Prices of one file or one feed.

    Attributes:
        name: of the file or feed, for messages.
        prices: what could be read.
        set_aside: what could not.
    """

    name: str
    prices: tuple[ListedPrice, ...]
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedRate:
    """An exchange rate, as a file lists it.

    Attributes:
        currency: ISO 4217 code.
        rate_date: the day of the rate.
        usd_per_unit: US dollars for one unit of the currency.
        source: who says so.
    """

    currency: str
    rate_date: date
    usd_per_unit: float
    source: str


@dataclass(frozen=True)
class RateList:
    """Exchange rates of one file.

    Attributes:
        name: of the file.
        rates: what could be read.
        set_aside: what could not.
    """

    name: str
    rates: tuple[ListedRate, ...]
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What a Spare Cores database says, as rows of our tables of the same names.

    Attributes:
        name: of the file.
        rows: by table, each row with the columns that both know.
        as_of: by vendor, when its newest server was seen.
        prices: its price table.
        set_aside: what could not be read.
    """

    name: str
    rows: Mapping[str, tuple[Mapping[str, Any], ...]]
    as_of: Mapping[str, datetime]
    prices: tuple[ListedPrice, ...] = ()
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where something was taken from, for ``catalog_source``.

    Attributes:
        url: address, or absolute path of a file.
        kind: ``database``, ``prices`` or ``rates``.
        sha256: checksum of what was read, hex.
        size_bytes: size of what was read.
        etag: the server's mark of this version.
    """

    url: str
    kind: str
    sha256: str
    size_bytes: int
    etag: str | None = None


@dataclass(frozen=True)
class Delivery:
    """One thing to take in.

    Attributes:
        content: what it says.
        origin: where it is from.
    """

    content: Snapshot | PriceList | RateList
    origin: Origin | None = None


@dataclass
class Tally:
    """What an import did to one kind of rows.

    Attributes:
        new: rows that were not known.
        changed: rows that were known otherwise.
        closed: rows that vanished.
        unchanged: rows that were known just so.
        older: rows left alone because newer ones are known.
    """

    new: int = 0
    changed: int = 0
    closed: int = 0
    unchanged: int = 0
    older: int = 0


@dataclass
class Summary:
    """What an import did.

    Attributes:
        tallies: by kind of rows: ``servers``, ``regions``, ``zones``, ``prices``, ``rates``; only what was imported.
        flagged: open prices of the vendors that the import touched, by what is doubtful about them.
        set_aside: what could not be taken in.
        notes: sentences that a reader must not miss.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tally(self, what: str) -> Tally:
        """The count of one kind of rows, which is in the summary from now on."""
        return self.tallies.setdefault(what, Tally())

    @property
    def changed_nothing(self) -> bool:
        """Whether the database already held all of it."""
        return not any(one.new or one.changed or one.closed for one in self.tallies.values())
