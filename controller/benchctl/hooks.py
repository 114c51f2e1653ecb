"""Tell somebody: a command of the user's, or a web address, is told what a person should not miss.

A hook that fails is said, and never ends a sweep. Its address or its arguments may be a secret, so that what is said
names neither.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import UsageError
from benchctl.request import is_web_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENDED = "ended"
BUDGET = "budget-80-percent"
LEAK = "leak"
EVENTS = {
    ENDED: "a sweep ended, well or not",
    BUDGET: "80 % of a sweep's budget are spent or committed",
    LEAK: "something of ours could not be destroyed, or nobody could be asked whether it was",
}

EVENT_VARIABLE = "BENCHCTL_EVENT"

TIMEOUT_SECONDS = 20.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A hook's address is where the user said, and nowhere else."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


def settled(hook: str) -> str:
    """A hook that means the same wherever it is run: a command that is named by a relative path gets an absolute one.

    Raises:
        UsageError: it can't be split into words, or is an address that is none.
    """
    if _is_address(hook) and not is_web_address(hook):
        raise UsageError("The hook's address is not valid.", "Give one as https://HOST/PATH.")
    if not hook.strip() or _is_address(hook):
        return hook
    try:
        program, *arguments = shlex.split(hook)
    except ValueError as error:
        raise UsageError(f"The hook can't be split into words: {error}.", "Close its quotation marks.") from None
    if "/" not in program or program.startswith("/"):
        return hook
    return shlex.join([str(Path(program).expanduser().absolute()), *arguments])


def _is_address(hook: str) -> bool:
    return hook.lower().startswith(("http://", "https://"))


def leak_facts(
    sweeps: Iterable[str], leaks: Iterable[Mapping[str, Any]], not_asked: Mapping[str, str]
) -> dict[str, Any]:
    """What is told of leaks.

    Args:
        sweeps: whose leaks they are, as far as that is known.
        leaks: what is there still: at least ``vendor``, ``kind``, ``name`` and ``id`` of each.
        not_asked: vendors that may hold something and could not be asked: why.
    """
    return {"sweeps": list(sweeps), "leaks": list(leaks), "not_asked": dict(not_asked)}


def tell(hook: str, event: str, facts: Mapping[str, Any], *, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Tell a hook of an event.

    Args:
        hook: ``http://`` or ``https://`` address that gets the facts by POST as JSON; or a command, split as a shell
            would and run without one, that gets them on its standard input and the event in ``BENCHCTL_EVENT``.
            Empty: nobody is told.
        event: one of :data:`EVENTS`.
        facts: what happened; without secrets. ``event`` is added.
        timeout_seconds: how long it may take.

    Returns:
        Why it failed, in one sentence; empty when it went well.
    """
    if not hook.strip():
        return ""
    body = json.dumps({"event": event, **facts}, default=str).encode()
    if _is_address(hook):
        problem = _post(hook.strip(), body, timeout_seconds)
    else:
        problem = _run(hook, event, body, timeout_seconds)
    return f"The hook was not told of '{event}': {problem}." if problem else ""


def _post(url: str, body: bytes, timeout_seconds: float) -> str:
    try:
        request = urllib.request.Request(  # noqa: S310 - the caller has checked the scheme
            url, data=body, headers={"Content-Type": "application/json", "User-Agent": "benchctl"}, method="POST"
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_seconds):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"its address answered with status {error.code}"
    except TimeoutError:
        return f"its address did not answer in {timeout_seconds:g} s"
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"its address did not answer in {timeout_seconds:g} s"
        # only the kind of the failure: its text may hold the address
        told = error.reason.strerror if isinstance(error.reason, OSError) else None
        return f"its address can't be reached ({told or type(error.reason).__name__})"
    except (OSError, http.client.HTTPException, ssl.SSLError) as error:
        return f"its address can't be reached ({type(error).__name__})"
    except ValueError:
        return "its address is not valid"


def _run(hook: str, event: str, body: bytes, timeout_seconds: float) -> str:
    try:
        words = shlex.split(hook)
    except ValueError:
        return "its command has a quotation mark without end"
    try:
        done = subprocess.run(
            words,
            input=body,
            env={**os.environ, EVENT_VARIABLE: event},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its command did not end in {timeout_seconds:g} s"
    except OSError as error:
        return f"its command can't be run ({error.strerror})"
    except ValueError:
        return "its command holds a character that no command may"
    return f"its command ended with exit status {done.returncode}" if done.returncode else ""
