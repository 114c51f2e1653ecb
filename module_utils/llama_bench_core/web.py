"""Asks servers for files and pieces of files: addresses, redirects, the token, and what an answer means."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from .delivery import DownloadError, FetchSettings

if TYPE_CHECKING:
    from typing import Any

    from .delivery import Opener
    from .values import Model

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one the next time; all other errors are the server's last word."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RefusedError(DownloadError):
    """The server's last word: asking again would not help."""


class HiccupError(DownloadError):
    """Something that may go better the next time.

    Attributes:
        retry_after_seconds: the pause that the server asked for, or ``None``.
    """

    def __init__(self, problem: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after_seconds = retry_after_seconds


class ChangedError(DownloadError):
    """The file on the server is not the one of which pieces are here already."""


@dataclass
class Answer:
    """A server's answer, its body still to be read.

    Attributes:
        response: what the opener returned.
        start: the first byte of the file that the body holds.
        total: size of the file, or ``None`` when the server does not tell.
        ranged: whether the server serves pieces.
        validator: strong ETag or Last-Modified, or empty.
    """

    response: Any
    start: int
    total: int | None
    ranged: bool
    validator: str

    def read(self, limit: int) -> bytes:
        """Some bytes of the body, at most ``limit``; none at its end.

        Raises:
            HiccupError: when the connection broke or nothing came in time.
        """
        try:
            block: bytes = self.response.read1(limit)
        except (socket.timeout, TimeoutError) as error:
            raise HiccupError("The connection stalled.") from error
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            raise HiccupError(f"The connection broke ({error!r}).") from error
        return block

    def shut_down(self) -> None:
        """End a :meth:`read` that another thread is in; the file behind a file: URL never blocks."""
        with suppress(OSError, ValueError, AttributeError):
            number = os.dup(self.response.fileno())
            try:
                connection = socket.socket(fileno=number)
            except OSError:
                os.close(number)
                return
            with connection, suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be done with it, read to its end or not."""
        self.response.close()


def addresses(model: Model, mirror: str = "") -> list[str]:
    """Where a model is looked for, in order: ``MIRROR/FILE``, then its own URL."""
    places = []
    if mirror:
        prefix = Path(mirror).as_uri() if mirror.startswith("/") else mirror
        places.append(f"{prefix.rstrip('/')}/{quote(model.file)}")
    if model.url:
        places.append(model.url)
    return places


def shown(url: str) -> str:
    """A URL as it may stand in a message: without user, password, query and fragment, which may be secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with suppress(ValueError):
        host += f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{parts.path}"


class Web:
    """Asks for files as the settings say.

    Args:
        settings: user agent, time-outs, token, certificate authorities.
        opener: what opens requests; by default urllib's, with the proxies of the environment.

    Raises:
        DownloadError: when the token file or the file of certificate authorities can't be read.
    """

    def __init__(self, settings: FetchSettings, opener: Opener | None = None) -> None:
        self._settings = settings
        self._opener: Opener = opener if opener is not None else make_opener(settings.ca_file)
        self._token = _read_token(settings.token_file)

    def ask(self, url: str, wall_seconds: float, start: int = 0, end: int | None = None, validator: str = "") -> Answer:
        """Ask for the bytes from ``start`` to before ``end`` (or to the last one).

        Args:
            url: of what.
            wall_seconds: the time now since the epoch, for ``Retry-After``.
            start: the first byte wanted.
            end: one after the last byte wanted.
            validator: what the file was when its other pieces came, or empty.

        Raises:
            RefusedError: the server's last word.
            HiccupError: it may go better the next time.
            ChangedError: the file is another one now.
        """
        request = self._request(url)
        request.add_header("Range", f"bytes={start}-{'' if end is None else end - 1}")
        if validator:
            request.add_header("If-Range", validator)
        host = urlsplit(url).hostname or url
        try:
            response = self._opener.open(request, timeout=self._settings.stall_seconds)
        except HTTPError as error:
            error.close()
            if error.code == 416 and (start or validator):
                raise ChangedError(f"{host} has no such piece of the file any more.") from error
            raise _judge_status(error, host, url, wall_seconds, bool(self._token)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _judge_failure(error, host, url) from error
        try:
            return _read_head(response, start, validator, host)
        except DownloadError:
            response.close()
            raise

    def _request(self, url: str) -> urllib.request.Request:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": self._settings.user_agent})  # noqa: S310
        except ValueError as error:
            raise RefusedError(f"{url!r} is not a URL that can be downloaded from.") from error
        if request.type not in ("http", "https", "file"):
            raise RefusedError(f"{shown(url)} can't be downloaded: only http, https and file URLs can.")
        if self._token and _may_see_token(url, self._settings.token_host):
            # "Unredirected": the servers that this one sends us to must not see it.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request


def make_opener(ca_file: str = "") -> urllib.request.OpenerDirector:
    """Make urllib's opener: the environment's proxies, TLS checked, redirects that show no other host the token.

    Raises:
        DownloadError: when the file of certificate authorities can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise DownloadError(f"The certificate authorities in {ca_file} can't be used: {error}.") from error
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects())


def probe_reachable(url: str, timeout: float = 5.0) -> bool:
    """Say whether ``url`` answers with data now (for ``weights: auto``), within ``timeout`` and without raising.

    Asks for the first byte only; a server that answers with an error (404 among them) is not reachable in this sense.
    """
    answered = threading.Event()

    def ask() -> None:
        with suppress(DownloadError):
            Web(FetchSettings(stall_seconds=timeout)).ask(url, 0.0, 0, 1).close()
            answered.set()

    asking = threading.Thread(target=ask, name="probe", daemon=True)
    asking.start()
    asking.join(timeout)  # looking up a name and each address of it have time-outs of their own
    return answered.is_set()


def retry_after_seconds(header: str, wall_seconds: float) -> float | None:
    """The pause that a ``Retry-After`` header asks for: seconds, or an HTTP date (RFC 9110, section 10.2.3)."""
    text = header.strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_seconds)
    except (TypeError, ValueError):
        return None


def pause_seconds(settings: FetchSettings, chance: float, failures: int, error: HiccupError) -> float:
    """How long to pause after ``failures`` in a row: doubling, with jitter; or what the server asked for.

    Args:
        settings: the first pause, the longest one, and the longest that a server may ask for.
        chance: a number from 0 to 1.
        failures: how many in a row, 1 or more.
        error: the last one.

    Raises:
        RefusedError: when the server asks for a pause so long that it amounts to a refusal.
    """
    asked = error.retry_after_seconds
    if asked is None:
        grown = min(settings.backoff_limit_seconds, settings.backoff_seconds * 2.0 ** (failures - 1))
        return grown * (0.5 + chance / 2)
    if asked > settings.retry_after_limit_seconds:
        raise RefusedError(f"{error.problem} It asks to come back in {asked:.0f} s, which is too long.") from error
    return asked * (1 + chance / 10)  # together the connections were too many: don't come back together


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, 308 on older Pythons too, never from TLS to plain HTTP; the token stays with its host."""

    def http_error_308(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return self.http_error_302(req, fp, code, msg, headers)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if old.scheme == "https" and new.scheme != "https":
            raise RefusedError(f"{old.hostname} redirects to {shown(newurl)}, which is not encrypted.")
        request = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request is not None and token and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", token)
        return request


def _read_token(path: str) -> str:
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DownloadError(f"The token file {path} can't be read.", "Check its name and rights.") from error
    if not token.isascii() or not token.isprintable() or " " in token:
        raise DownloadError(f"The token file {path} holds no token.", "It must hold one line, the token alone.")
    return token


def _may_see_token(url: str, token_host: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secret = parts.scheme == "https" or host in LOOPBACK
    return secret and (host == token_host or host.endswith(f".{token_host}"))


def _read_head(response: Any, start: int, validator: str, host: str) -> Answer:
    status = getattr(response, "status", None)  # a file: URL has none
    headers = response.headers
    if status == 206:
        found = re.match(r"bytes (\d+)-\d+/(\d+)$", headers.get("Content-Range", "").strip())
        if not found or int(found[1]) != start:
            raise HiccupError(f"{host} answered with another piece of the file than it was asked for.")
        now = _validator(headers)
        if validator and now and now != validator:
            raise ChangedError(f"The file on {host} has changed.")
        return Answer(response, start, int(found[2]), True, now)
    if status not in (None, 200):
        raise RefusedError(f"{host} answered {status} instead of the file.")
    if validator:
        raise ChangedError(f"The file on {host} has changed, or is no longer served in pieces.")
    length = headers.get("Content-Length", "")
    known = length.isdigit() and "chunked" not in headers.get("Transfer-Encoding", "").lower()
    return Answer(response, 0, int(length) if known else None, False, "")


def _validator(headers: Any) -> str:
    """What tells one version of the file from another: a weak ETag can't (RFC 9110, section 13.1.5)."""
    tag = str(headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _judge_status(error: HTTPError, host: str, url: str, wall_seconds: float, with_token: bool) -> DownloadError:
    name = http.client.responses.get(error.code, "")
    said = f"{host} answered {error.code}{f' ({name})' if name else ''} for {urlsplit(url).path}"
    if error.code in PASSING:
        return HiccupError(f"{said}.", retry_after_seconds(error.headers.get("Retry-After", ""), wall_seconds))
    if error.code in (401, 403):
        why = "its token does not open it" if with_token else "a gated model needs a token"
        return RefusedError(f"{said}: {why}.")
    if 300 <= error.code < 400:
        return RefusedError(f"{said}, a redirect that leads nowhere.")
    return RefusedError(f"{said}.")


def _judge_failure(error: Exception, host: str, url: str) -> DownloadError:
    if isinstance(error, DownloadError):  # from a redirect
        return error
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RefusedError(f"The certificate of {host} is not trusted: {cause.verify_message}.")
    if urlsplit(url).scheme == "file":
        return RefusedError(f"{urlsplit(url).path} can't be read: {cause}.")
    if isinstance(cause, (ValueError, http.client.InvalidURL)):
        return RefusedError(f"{shown(url)} is not a URL that can be downloaded from.")
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return HiccupError(f"{host} did not answer in time.")
    text = str(cause).strip() or type(cause).__name__
    return HiccupError(f"{host} could not be asked: {text}.")
