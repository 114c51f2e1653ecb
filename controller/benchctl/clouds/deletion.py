"""Deleting at an API that answers before it is done: asked again until what is deleted is no longer there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchctl.clouds.cloud import CloudError
from benchctl.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_SECONDS = 0.5


def until_gone(
    remove: Callable[[], bool],
    *,
    what: str,
    gone: Callable[[CloudError], bool],
    busy: Callable[[CloudError], bool],
    wait_seconds: float,
    poll_seconds: float,
) -> None:
    """Ask for one deletion until it is done.

    Args:
        remove: asks for whatever comes next (to stop a server, then to delete it); says whether the thing is gone.
        what: the thing, for whoever reads that it is there still, as ``aws: server i-1 in eu-west-1``.
        gone: whether a refusal means that it is no longer there.
        busy: whether a refusal means that it will be taken later, when what holds the thing has gone.
        wait_seconds: how long it may take.
        poll_seconds: the longest pause between two looks; the first ones are shorter.

    Raises:
        CloudError: it is refused for another reason, or not gone in time: then the last refusal, if there was one.
    """
    deadline = time.monotonic() + wait_seconds
    pause = min(FIRST_PAUSE_SECONDS, poll_seconds)
    while True:
        try:
            if remove():
                return
            why = CloudError(f"{what} is not gone after {wait_seconds:.0f} s.", refusal=Refusal.TIMEOUT)
        except CloudError as error:
            if gone(error):
                return
            if not busy(error):
                raise
            why = error
        if time.monotonic() + pause > deadline:
            raise why
        time.sleep(pause)
        pause = min(poll_seconds, pause * 2)
