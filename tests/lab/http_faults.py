"""A real HTTP server on loopback that misbehaves as it is told, request by request, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

BLOCK = 64 * 1024


@dataclass(frozen=True)
class Manner:
    """How one request is answered; by default as it should be.

    Attributes:
        status: answer with this instead of the file.
        headers: added to the answer's headers.
        cut_after: close the connection after so many bytes of the body.
        stall_after: send nothing more after so many bytes of the body, and leave the connection open.
        bytes_per_second: the pace of this one connection.
        wrong: send other bytes than the file's, as many.
        ranges: serve pieces, or the whole file whatever is asked.
        chunked: send the body in chunks, without telling its length.
        content_length: claim this length.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    bytes_per_second: float | None = None
    wrong: bool = False
    ranges: bool = True
    chunked: bool = False
    content_length: int | None = None


@dataclass
class File:
    """A file on the server.

    Attributes:
        body: its content.
        etag: as it stands in the header, quotes included; empty: none is sent.
        manner: how every request is answered when the script is over.
        script: how the next requests are answered, one each.
    """

    body: bytes
    etag: str = '"one"'
    manner: Manner = field(default_factory=Manner)
    script: list[Manner] = field(default_factory=list)


@dataclass
class Asked:
    """One request, as it came.

    Attributes:
        path: of what.
        headers: all of them, names in lower case.
        start: first byte asked for, or ``None`` without a range.
        end: one after the last byte asked for, or ``None`` when open.
        status: what was answered.
        sent: bytes of the body that were sent.
    """

    path: str
    headers: dict[str, str]
    start: int | None = None
    end: int | None = None
    status: int = 0
    sent: int = 0


class Server:
    """What a test has in hand: the files to serve, and the requests that came."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, File] = {}
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.faulty = self
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self, path: str, body: bytes, *script: Manner, manner: Manner | None = None, etag: str = '"one"') -> File:
        """Put a file on the server."""
        file = File(body, etag, manner or Manner(), list(script))
        self.files[path] = file
        return file

    def requests(self, path: str = "") -> list[Asked]:
        """The requests so far, of one path or of all."""
        with self.lock:
            return [one for one in self.asked if not path or one.path == path]

    def close(self) -> None:
        """End it, and every answer that it is in the middle of."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextlib.contextmanager
def server(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that is gone when the block ends; with ``tls`` it speaks HTTPS."""
    running = Server(tls)
    try:
        yield running
    finally:
        running.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    faulty: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that hang up are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are in the list."""

    def do_GET(self) -> None:
        """Answer as the script says; http.server calls it by this name."""
        self.close_connection = True
        faulty = self.server.faulty
        asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
        found = re.match(r"bytes=(\d+)-(\d*)$", asked.headers.get("range", ""))
        if found:
            asked.start = int(found[1])
            asked.end = int(found[2]) + 1 if found[2] else None
        with faulty.lock:
            faulty.asked.append(asked)
            file = faulty.files.get(self.path)
            manner = Manner(status=404) if file is None else file.script.pop(0) if file.script else file.manner
        with contextlib.suppress(OSError):
            self._answer(faulty, file, manner, asked)

    def _answer(self, faulty: Server, file: File | None, manner: Manner, asked: Asked) -> None:
        if manner.status or file is None:
            asked.status = manner.status
            self.send_response(manner.status)
            self._end_head(manner.headers, {"Content-Length": "0"})
            return
        if file.etag and asked.headers.get("if-none-match") == file.etag:
            asked.status = 304
            self.send_response(304)
            self._end_head({"ETag": file.etag})
            return
        start, end, asked.status = self._piece(file, manner, asked)
        if asked.status == 416:
            self.send_response(416)
            self._end_head({}, {"Content-Length": "0", "Content-Range": f"bytes */{len(file.body)}"})
            return
        self.send_response(asked.status)
        headers = {"ETag": file.etag} if file.etag else {}
        if asked.status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(file.body)}"
        if manner.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(end - start if manner.content_length is None else manner.content_length)
        self._end_head(headers, manner.headers)
        self._send(faulty, file.body[start:end], manner, asked)

    def _piece(self, file: File, manner: Manner, asked: Asked) -> tuple[int, int, int]:
        size = len(file.body)
        unchanged = asked.headers.get("if-range", file.etag) == file.etag
        if asked.start is None or not manner.ranges or not unchanged:
            return 0, size, 200
        if asked.start >= size:
            return 0, 0, 416
        return asked.start, min(asked.end or size, size), 206

    def _end_head(self, *headers: dict[str, str]) -> None:
        for name, value in {name: value for some in headers for name, value in some.items()}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, faulty: Server, body: bytes, manner: Manner, asked: Asked) -> None:
        content = bytes(len(body)) if manner.wrong else body
        stop = min(one for one in (manner.cut_after, manner.stall_after, len(content)) if one is not None)
        began = time.monotonic()
        block = BLOCK if manner.bytes_per_second is None else max(1, min(BLOCK, int(manner.bytes_per_second / 50)))
        while asked.sent < stop and not faulty.closing.is_set():
            piece = content[asked.sent : min(asked.sent + block, stop)]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if manner.chunked else piece)
            asked.sent += len(piece)
            if manner.bytes_per_second is not None:
                faulty.closing.wait(max(0.0, began + asked.sent / manner.bytes_per_second - time.monotonic()))
        if manner.stall_after is not None:
            faulty.closing.wait()
        elif manner.chunked and stop == len(content):
            self.wfile.write(b"0\r\n\r\n")
