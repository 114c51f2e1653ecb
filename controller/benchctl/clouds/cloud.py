"""What a vendor's module offers, and how it is found by name.

A module ``benchctl.clouds.NAME`` defines ``CLOUD``, an object of the protocol :class:`Cloud`. Importing the module is
cheap: the vendor's SDKs are imported inside the functions that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from benchctl.errors import BenchctlError, UsageError
from benchctl.refusals import Refusal
from benchctl.request import CLOUDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from benchctl.clouds.spec import Asked, InstanceSpec, Resource, SharedSpec

VENDOR_IDS = {"hetzner": "hcloud"}
"""Vendors whose identifier in the database is another than their name on the command line."""


class CloudError(BenchctlError):
    """A vendor's API said no, or could not be reached.

    Attributes:
        refusal: why, as far as it is known.
        said: the vendor's own words.
    """

    def __init__(self, problem: str, mend: str = "", *, refusal: Refusal | None = None, said: str = "") -> None:
        super().__init__(problem, mend)
        self.refusal, self.said = refusal, said or problem


DENIED = (Refusal.NOT_OFFERED, Refusal.ACCOUNT)
"""Why a region says nothing, and would say the same again: it is closed to the account, or we may not look there."""


class ClosedRegionError(CloudError):
    """A region that the account's organisation denies it: nothing can be made there, or seen that was there before."""

    def __init__(self, problem: str, *, said: str = "") -> None:
        super().__init__(problem, refusal=Refusal.NOT_OFFERED, said=said)


class PartialListError(CloudError):
    """Some of a vendor's regions did not say what they have. Of the others everything is known.

    Attributes:
        found: what the others have.
        missing: the regions that did not answer, or did not in all their zones, and why.
        answered: whether any region did.
    """

    def __init__(
        self,
        found: Sequence[Resource],
        missing: Mapping[str, CloudError],
        *,
        answered: bool,
        zones: Collection[str] | None = None,
    ) -> None:
        """``zones``: which of the regions' zones did not answer, where it is known; else none of them did."""
        # what may pass comes first: who only knows that the list failed asks again
        why = min(missing.values(), key=lambda error: error.refusal in DENIED)
        refusal = Refusal.ACCOUNT if why.refusal in DENIED else why.refusal
        super().__init__(f"{', '.join(missing)}: {why}", refusal=refusal, said=why.said)
        self.found, self.missing, self.answered = list(found), dict(missing), answered
        self._zones = zones

    def hides(self, resource: Resource) -> bool:
        """Whether it is where nobody answered, so that a list without it does not say that it is gone."""
        if self._zones is not None and resource.zone:
            return resource.zone in self._zones
        return resource.region in self.missing


class Client(Protocol):
    """A vendor's own client: what looks at the cloud, and does not believe our state.

    Every method raises :class:`CloudError` with the vendor's words where the API refuses or can't be reached.
    """

    def whoami(self) -> str:
        """Which account the login is of, in a few words; the cheapest call that proves the login."""
        ...

    def find(self) -> list[Resource]:
        """Everything of ours that the API lists, of all kinds and all pages, terminated servers left out.

        By label, and by name where a kind can't be labelled; disks, addresses and interfaces that a server of ours
        left behind are found too.

        Raises:
            PartialListError: some regions did not answer; it has what the others list.
        """
        ...

    def delete(self, resource: Resource) -> None:
        """Delete it, and wait until the API says that the deletion is done. What is gone already is deleted."""
        ...


class Cloud(Protocol):
    """One vendor.

    Attributes:
        name: as the command line calls it.
        vendor_id: as the database calls it.
        limits_itself: whether the cloud ends an instance of ours by itself when its time is over.
        engine_seconds: how long Pulumi's engine may take to make a job's resources, and to destroy them: longer than
            what the program lets a single one of them take, so that the vendor's own words are heard.
        user: who logs in on the image.
    """

    name: str
    vendor_id: str
    limits_itself: bool
    engine_seconds: float

    def user(self, spec: InstanceSpec) -> str:
        """Who logs in."""
        ...

    def login_problem(self, environment: Mapping[str, str]) -> str:
        """What is missing to log in, and what to set, as one sentence; empty when something is there. No network."""
        ...

    def account(self, environment: Mapping[str, str], client: Client) -> str:
        """What tells the account whose things a login sees from others; may be a secret, and is shown to nobody.

        Raises:
            CloudError: only the API knows, and it refuses or can't be reached.
        """
        ...

    def engine_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Those variables of ``environment`` that the vendor's Pulumi provider reads: the engine gets no others."""
        ...

    def shared_scope(self, region: str) -> str | None:
        """In what a sweep's shared resources are made: a region, or empty for all; nothing where nothing is shared."""
        ...

    def shared_resources(self, spec: SharedSpec) -> tuple[Asked, ...]:
        """All that :meth:`shared_program` makes. Pure."""
        ...

    def shared_program(self, spec: SharedSpec) -> dict[str, Any]:
        """The Pulumi program of what is shared; returns the stack's outputs: strings, or Pulumi Outputs of strings."""
        ...

    def resources(self, spec: InstanceSpec) -> tuple[Asked, ...]:
        """All that :meth:`program` makes, the server first. Pure."""
        ...

    def program(self, spec: InstanceSpec, shared: Mapping[str, str]) -> dict[str, Any]:
        """The Pulumi program of one job.

        Args:
            spec: what is wanted.
            shared: the outputs of :meth:`shared_program`.

        Returns:
            The stack's outputs: ``address``, and ``ids``: the cloud's identifier by name for each of
            :meth:`resources`.
        """
        ...

    def client(self, environment: Mapping[str, str], regions: Sequence[str] = ()) -> Client:
        """The vendor's own client, logged in with ``environment``.

        Args:
            environment: where the login is looked for.
            regions: where to look, for vendors whose API is one per region; none for all that the account may use.
        """
        ...


def cloud_of(name: str) -> Cloud:
    """The vendor ``name``, as the command line or as the database calls it.

    Raises:
        UsageError: there is no such vendor.
    """
    plain = next((ours for ours, theirs in VENDOR_IDS.items() if theirs == name), name)
    if plain not in CLOUDS:
        raise UsageError(f"'{name}' is no cloud.", f"Clouds: {', '.join(CLOUDS)}.")
    return cast("Cloud", importlib.import_module(f"benchctl.clouds.{plain}").CLOUD)


def vendor_id(name: str) -> str:
    """What the database calls the vendor ``name``."""
    return VENDOR_IDS.get(name, name)
