"""All emulated clouds, in one process: ``python -m emulation.world FOLDER``. No vendor is asked for anything.

It holds what exists in memory, and lives through kills of the controller and of the engine, as a cloud does. Routes:

- ``/engine/VENDOR/CALL``: what the engine's provider plugin asks (see ``provider``);
- ``/VENDOR/...``: the vendor's API, for its own Python client;
- ``/control/...``: what a test scripts and asks (see ``fixtures.Emulated``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulation import faults
from emulation.backing import Backing
from emulation.faults import Call, Fault, Faults
from emulation.refusals import Refused
from emulation.store import Lag
from emulation.vendor import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from emulation.vendor import Vendor

VENDORS = ("hetzner", "gcp", "aws", "azure", "upcloud")
"""Modules of this package that define ``VENDOR``, a subclass of ``Vendor``; one that is not written yet is left out."""

POLL_SECONDS = 0.5

RESET_SECONDS = 60.0
"""How long a reset waits for calls that are under way."""


class World:
    """Every emulated vendor, and what befalls them."""

    def __init__(self, cache: Path, containers: bool, owner: str) -> None:
        self.faults, self.journal = Faults(), list[dict[str, Any]]()
        self.down: set[str] = set()
        self.limits: dict[str, int] = {}
        self.backing = Backing(cache, containers, owner)
        self._lock, self._released = threading.Lock(), threading.Event()
        self._login: ContextVar[tuple[Mapping[str, Any], Mapping[str, str]]] = ContextVar("login", default=({}, {}))
        self._release_of: ContextVar[threading.Event] = ContextVar("release")
        self.vendors: dict[str, Vendor] = {}
        for name in VENDORS:
            if importlib.util.find_spec(f"emulation.{name}"):
                self.vendors[name] = importlib.import_module(f"emulation.{name}").VENDOR(self)

    @property
    def login(self) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """With which provider settings and environment the plugin that calls was started."""
        return self._login.get()

    # -- the engine ---------------------------------------------------------------------------------------------------

    def engine(self, vendor: Vendor, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One call of the provider plugin."""
        self._login.set((body.get("settings") or {}, body.get("environment") or {}))
        if name == "configure":
            call = Call(vendor.name, "login", via="engine")
            with self.noted(call):
                self.strike(call, {})
                vendor.configure(*self.login)
            return {}
        if name == "invoke":
            call = Call(vendor.name, "invoke", place=vendor.calls_from(), name=body["function"], via="engine")
            with self.noted(call):
                self.strike(call, body["arguments"])
                return {"answer": vendor.invoke(body["function"], body["arguments"])}
        token = body["kind"]
        inputs = body.get("inputs") or body.get("state") or {}
        if name == "check":
            return {"failures": vendor.check(token, inputs)}
        call = Call(
            vendor.name,
            name,
            vendor.kind_of(token),
            vendor.place(token, inputs),
            vendor.name_of(token, inputs),
            "engine",
        )
        with self.noted(call):
            late = self.strike(call, inputs)
            if name == "create":
                return self._create(vendor, token, inputs, late)
            if name == "read":
                return {"state": vendor.read(token, body["id"], body["state"])}
            if name == "update":
                return {"state": vendor.update(token, body["id"], body["state"], body["inputs"])}
            if name == "delete":
                if late != faults.LIES:
                    vendor.delete(token, body["id"], body["state"])
                return {}
        raise Refused(f"no such call: {name}")

    def _create(self, vendor: Vendor, token: str, inputs: Mapping[str, Any], late: str) -> dict[str, Any]:
        limit = self.limits.get(vendor.name)
        if limit is not None and vendor.kind_of(token) == "server" and len(vendor.store.alive("server")) >= limit:
            raise vendor.words(faults.QUOTA, inputs)
        identifier, state = vendor.create(token, inputs)
        if late in faults.LATE:
            throttled = late == faults.AFTER_THROTTLED
            refused = vendor.words(faults.THROTTLED if throttled else faults.TIMEOUT, inputs)
            if late == faults.AFTER_KEPT:
                refused.made = identifier, {**inputs, **state}
            raise refused
        return {"id": identifier, "state": state}

    # -- faults -------------------------------------------------------------------------------------------------------

    def strike(self, call: Call, inputs: Mapping[str, Any]) -> str:
        """Let what the test scripted befall a call; returns an effect that comes at its end, if any.

        Raises:
            Refused: the call fails.
        """
        vendor = self.vendors[call.vendor]
        if call.vendor in self.down:
            raise vendor.outage()
        for fault in self.faults.take(call):
            if fault.effect == faults.SLOW:
                time.sleep(fault.seconds)
            elif fault.effect == faults.HOLD:
                self._release_of.get().wait(faults.HOLD_SECONDS)
            elif fault.effect == faults.FAILS:
                raise vendor.outage()
            elif fault.effect in (*faults.LATE, faults.LIES):
                return fault.effect
            else:
                raise vendor.words(fault.effect, inputs)
        return ""

    @contextlib.contextmanager
    def noted(self, call: Call) -> Any:
        """Keep a call in the journal, with how it ended."""
        entry = {**vars(call), "began": time.time(), "ended": None, "said": None}
        # a test that has seen the call in the journal may let it go on before it waits
        self._release_of.set(self._released)
        with self._lock:
            self.journal.append(entry)
        try:
            yield
        except Refused as refused:
            entry["said"] = refused.text
            raise
        finally:
            entry["ended"] = time.time()

    def api(self, call: Call, inputs: Mapping[str, Any] | None = None) -> str:
        """For a vendor's API: journal and faults of one call that does nothing else; returns what ``strike`` does."""
        with self.noted(call):
            return self.strike(call, inputs or {})

    # -- the test -----------------------------------------------------------------------------------------------------

    def control(self, name: str, body: Mapping[str, Any]) -> Any:
        """One call of the test."""
        return getattr(self, f"_control_{name}")(**body)

    def _control_fault(self, **fault: Any) -> None:
        self.faults.add(Fault(**fault))

    def _control_mend(self) -> None:
        self.faults.clear()

    def _control_down(self, vendor: str, down: bool) -> None:
        (self.down.add if down else self.down.discard)(vendor)

    def _control_limit(self, vendor: str, servers: int) -> None:
        self.limits[vendor] = servers

    def _control_lag(self, vendor: str, **lag: Any) -> None:
        self.vendors[vendor].store.lag = Lag(**lag)

    def _control_alive(self, vendor: str = "", kind: str = "") -> list[dict[str, Any]]:
        return [
            {"vendor": name, "kind": thing.kind, "id": thing.id, "name": thing.name, "data": thing.data}
            for name, one in self.vendors.items()
            if vendor in ("", name)
            for thing in one.store.alive(kind)
        ]

    def _control_vanish(self, vendor: str, name: str) -> bool:
        one = self.vendors[vendor]
        found = next((thing for thing in one.store.alive("server") if thing.name == name), None)
        if found:
            one.vanish(found)
        return found is not None

    def _control_offer(self, vendor: str, server_type: str) -> None:
        self.vendors[vendor].offer(server_type)

    def _control_journal(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(entry) for entry in self.journal]

    def _control_release(self) -> None:
        released, self._released = self._released, threading.Event()
        released.set()

    def _control_reset(self) -> None:
        self.faults.clear()
        self.down.clear()
        self.limits.clear()
        # a call that is under way would make its thing after everything was forgotten
        deadline = time.monotonic() + RESET_SECONDS
        self._control_release()
        while any(entry["ended"] is None for entry in self._control_journal()) and time.monotonic() < deadline:
            time.sleep(0.02)
            self._control_release()
        with self._lock:
            self.journal.clear()
        for vendor in self.vendors.values():
            vendor.store.clear()
        self.backing.clear()

    def _control_variables(self, url: str, folder: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, vendor in self.vendors.items():
            found.update(vendor.variables(f"{url}/{name}", Path(folder)))
        return found

    def _control_packages(self) -> dict[str, str]:
        return {name: vendor.package for name, vendor in self.vendors.items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    world: World


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing: the calls are in the journal."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        world = self.server.world
        try:
            response = _respond(world, Request.of(self.command, self.path, headers, body))
        except Exception:  # noqa: BLE001 - a fault of the emulation itself, to be read in the test's output
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            response = Response(500, {"text": f"the emulation itself failed: {text}"})
        content = response.body if response.body is not None else json.dumps(response.json).encode()
        with contextlib.suppress(OSError):
            self.send_response(response.status)
            for name, value in {"Content-Type": "application/json", **response.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(0 if response.status == 204 else len(content)))
            self.end_headers()
            if response.status != 204:
                self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815


def _respond(world: World, request: Request) -> Response:
    head, _, rest = request.path.lstrip("/").partition("/")
    if head == "control":
        return Response(json=world.control(rest, request.json() or {}))
    if head == "engine":
        name, _, call = rest.partition("/")
        vendor = world.vendors[name]
        try:
            return Response(json=world.engine(vendor, call, request.json()))
        except Refused as refused:
            identifier, state = refused.made or ("", {})
            return Response(422, {"text": vendor.engine_text(refused), "id": identifier, "state": state})
    if head not in world.vendors:
        return Response(404, {"text": f"nothing at {request.path}"})
    vendor = world.vendors[head]
    below = Request(request.method, f"/{rest}", request.query, request.headers, request.body)
    try:
        return vendor.answer(below)
    except Refused as refused:
        return vendor.error(refused)


def main() -> None:
    """Serve until the process that started this one ends, or says so by closing standard input."""
    folder, cache, containers, owner = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "containers", sys.argv[4]
    parent = os.getppid()
    world = World(cache, containers, owner)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.world = world
    for vendor in world.vendors.values():
        vendor.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fresh = folder / "port.new"
    fresh.write_text(str(server.server_address[1]))
    fresh.replace(folder / "port")
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.wait(POLL_SECONDS) and os.getppid() == parent:
        pass
    server.shutdown()
    for vendor in world.vendors.values():
        vendor.close()
    world.backing.close()


if __name__ == "__main__":
    main()
