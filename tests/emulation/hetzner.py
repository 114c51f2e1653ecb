"""Hetzner Cloud, emulated: it says what the vendor's API is known to say. The vendor was not asked.

Sources of the routes and their fields: https://docs.hetzner.cloud and the client ``hcloud`` 2.27.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from typing import TYPE_CHECKING, Any

from emulation import cloudinit, faults
from emulation.faults import Call
from emulation.refusals import Refused, Rule, first
from emulation.store import PAGE, Thing
from emulation.vendor import Request, Response, Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOCATIONS = ("fsn1", "nbg1", "hel1", "ash", "hil", "sin")
_EUROPE, _X86_EVERYWHERE = ("fsn1", "nbg1", "hel1"), LOCATIONS

TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("cx22", "cx32", "cx42", "cx52", "cx23", "cx33", "cx43", "cx53"), ("x86", _EUROPE)),
    **dict.fromkeys(("cpx11", "cpx21", "cpx31", "cpx41", "cpx51"), ("x86", _X86_EVERYWHERE)),
    **dict.fromkeys(("ccx13", "ccx23", "ccx33", "ccx43", "ccx53", "ccx63"), ("x86", _X86_EVERYWHERE)),
    **dict.fromkeys(("cax11", "cax21", "cax31", "cax41"), ("arm", _EUROPE)),
    **dict.fromkeys(("cx11", "cx21", "cx31", "cx41", "cx51"), ("x86", _EUROPE)),
}
"""Architecture and locations by type; made up of the vendor's families, not its full list."""

RETIRED = ("cx11", "cx21", "cx31", "cx41", "cx51")
RETIRED_IN = {"cpx31": ("fsn1",)}
"""Types go from one location after the other."""

IMAGES = {
    "ubuntu-24.04": ("x86", "arm"),
    "debian-12": ("x86", "arm"),
    "ubuntu-22.04": ("x86", "arm"),
    "alma-9": ("x86",),
}

SERVER, KEY, FIREWALL = "hcloud:index/server:Server", "hcloud:index/sshKey:SshKey", "hcloud:index/firewall:Firewall"
KINDS = {SERVER: "server", KEY: "key", FIREWALL: "firewall"}

ROUTES = {
    "servers": "server",
    "ssh_keys": "key",
    "firewalls": "firewall",
    "primary_ips": "address",
    "volumes": "disk",
    "networks": "network",
}

_LABEL_KEY = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?)?")
_HOSTNAME = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
_KEY = re.compile(r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) [A-Za-z0-9+/=]{20,}(?: .*)?")
_CIDR = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}/\d{1,2}|[0-9a-f:]+/\d{1,3}")

_PROVIDER = "https://github.com/hetznercloud/terraform-provider-hcloud/blob/main/internal/server/resource.go"
_REFERENCE = "https://docs.hetzner.cloud/reference/cloud"


def _labels_wrong(_: Hetzner, inputs: Mapping[str, Any]) -> bool:
    labels = inputs.get("labels") or {}
    return any(not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value) for key, value in labels.items())


def _named_already(kind: str) -> Any:
    return lambda vendor, inputs: any(one.name == inputs.get("name") for one in vendor.store.alive(kind))


def _architecture(inputs: Mapping[str, Any]) -> str:
    return TYPES.get(inputs.get("serverType", ""), ("x86", ()))[0]


RULES: tuple[Rule, ...] = (
    Rule(
        "datacenter-is-gone", SERVER,
        lambda _, inputs: bool(inputs.get("datacenter")),
        'Unsupported argument: An argument named "datacenter" is not expected here.',
        "https://docs.hetzner.cloud/changelog#2026-06-02-datacenters-deprecated",
        property="datacenter",
    ),
    Rule(
        "server-type-unknown", SERVER,
        lambda _, inputs: inputs.get("serverType") not in TYPES,
        "server type {serverType} not found",
        _PROVIDER,
    ),
    Rule(
        "server-type-retired", SERVER,
        lambda _, inputs: inputs.get("serverType") in RETIRED,
        'Server Type "{serverType}" is unavailable in all locations and can no longer be ordered',
        "https://github.com/hetznercloud/terraform-provider-hcloud/blob/main/internal/deprecation; the same words in "
        "hetzner.hcloud's deprecated_server_type_warning",
    ),
    Rule(
        "server-type-retired-here", SERVER,
        lambda _, inputs: inputs.get("location") in RETIRED_IN.get(str(inputs.get("serverType")), ()),
        'Server Type "{serverType}" is unavailable in "{location}" and can no longer be ordered',
        "https://github.com/Dakera-AI/dakera-deploy/pull/185",
    ),
    Rule(
        "image-not-for-architecture", SERVER,
        lambda _, inputs: _architecture(inputs) not in IMAGES.get(str(inputs.get("image")), ()),
        "image {image} not found",
        _PROVIDER,
    ),
    Rule(
        "key-not-found", SERVER,
        lambda vendor, inputs: any(not vendor.key(one) for one in inputs.get("sshKeys") or ()),
        "SSH key not found: {missing}",
        _PROVIDER,
        values=lambda vendor, inputs: {"missing": next(one for one in inputs["sshKeys"] if not vendor.key(one))},
    ),
    Rule(
        "location-not-found", SERVER,
        lambda _, inputs: inputs.get("location") not in LOCATIONS,
        "location '{location}' not found",
        "https://github.com/hetznercloud/terraform-provider-hcloud/issues/493",
        "invalid_input",
    ),
    Rule(
        "type-not-in-location", SERVER,
        lambda _, inputs: inputs.get("location") not in TYPES[inputs["serverType"]][1],
        "unsupported location for server type",
        "https://github.com/autobase-tech/autobase/issues/1403",
        "invalid_input",
    ),
    Rule(
        "name-no-hostname", SERVER,
        lambda _, inputs: not _HOSTNAME.fullmatch(str(inputs.get("name"))),
        "invalid input in field 'name'",
        "https://github.com/mysticaltech/terraform-hcloud-kube-hetzner/issues/104",
        "invalid_input",
        values=lambda *_: {},
    ),
    Rule(
        "name-used", SERVER, _named_already("server"),
        "server name is already used",
        f"{_REFERENCE}#servers-create-a-server",
        "uniqueness_error", 409,
    ),
    Rule(
        "labels", SERVER, _labels_wrong,
        "invalid input in field 'labels'",
        "https://github.com/hetznercloud/terraform-provider-hcloud/issues/345",
        "invalid_input",
    ),
    Rule(
        "user-data-too-long", SERVER,
        lambda _, inputs: len(str(inputs.get("userData") or "").encode()) > 32 * 1024,
        "invalid input in field 'user_data'",
        f"{_REFERENCE}#servers-create-a-server",
        "invalid_input",
    ),
    Rule(
        "firewall-not-found", SERVER,
        lambda vendor, inputs: any(
            vendor.store.get("firewall", str(int(one))) is None for one in inputs.get("firewallIds") or ()
        ),
        "firewall not found",
        f"{_REFERENCE}#errors",
        "not_found", 404,
    ),
    Rule(
        "key-twice", KEY,
        lambda vendor, inputs: any(
            one.data["public_key"].split()[:2] == str(inputs.get("publicKey")).split()[:2]
            for one in vendor.store.alive("key")
        ),
        "SSH key not unique",
        "https://github.com/hetznercloud/terraform-provider-hcloud/issues/12",
        "uniqueness_error", 409,
    ),
    Rule(
        "key-name-used", KEY, _named_already("key"),
        "SSH key name is already used",
        f"{_REFERENCE}#ssh-keys-create-an-ssh-key",
        "uniqueness_error", 409,
    ),
    Rule(
        "key-invalid", KEY,
        lambda _, inputs: not _KEY.fullmatch(str(inputs.get("publicKey"))),
        "invalid input in field 'public_key'",
        f"{_REFERENCE}#ssh-keys-create-an-ssh-key",
        "invalid_input",
    ),
    Rule(
        "key-labels", KEY, _labels_wrong,
        "invalid input in field 'labels'",
        "https://github.com/hetznercloud/terraform-provider-hcloud/issues/345",
        "invalid_input",
    ),
    Rule(
        "firewall-port-missing", FIREWALL,
        lambda _, inputs: any(
            rule["protocol"] in ("tcp", "udp") and not rule.get("port") for rule in inputs.get("rules") or ()
        ),
        "invalid input in field 'rules'",
        "pulumi_hcloud/_inputs.py, FirewallRuleArgs.port: required when protocol is tcp or udp",
        "invalid_input",
    ),
    Rule(
        "firewall-source", FIREWALL,
        lambda _, inputs: any(
            not _CIDR.fullmatch(one) for rule in inputs.get("rules") or () for one in rule.get("sourceIps") or ()
        ),
        "invalid CIDR address: {wrong}",
        "https://github.com/hetznercloud/terraform-provider-hcloud/blob/main/internal/firewall/resource.go",
        values=lambda _, inputs: {
            "wrong": next(one for rule in inputs["rules"] for one in rule["sourceIps"] if not _CIDR.fullmatch(one))
        },
        property="rules",
    ),
    Rule(
        "firewall-labels", FIREWALL, _labels_wrong,
        "invalid input in field 'labels'",
        "https://github.com/hetznercloud/terraform-provider-hcloud/issues/345",
        "invalid_input",
    ),
)  # fmt: skip

_LISTED = "1 error occurred:\n\t* {}\n\n"
"""How bridged providers show errors."""

IN_USE = (
    "firewall with ID {id} is still in use",
    f"{_REFERENCE}#firewalls-delete-a-firewall",
)


class Hetzner(Vendor):
    """See the module."""

    name = "hetzner"
    package = "hcloud"

    TOKEN = "emulated-hetzner-token-of-sixty-four-characters"  # noqa: S105
    READ_ONLY = "emulated-hetzner-token-that-may-only-read"
    ROTATED = "emulated-hetzner-token-that-takes-the-place-of-the-first"
    OTHER_PROJECT = "emulated-hetzner-token-of-a-project-that-has-nothing"

    def variables(self, url: str, folder: Path) -> dict[str, str]:
        del folder
        return {"HCLOUD_TOKEN": self.TOKEN, "HCLOUD_ENDPOINT": f"{url}/v1"}

    # -- the engine ---------------------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        if not settings.get("token") and not environment.get("HCLOUD_TOKEN"):
            # the bridged provider's own words, before any call
            raise Refused('Missing required argument: The argument "token" is required, but no definition was found.')

    def _engine_token(self) -> str:
        settings, environment = self.world.login
        return str(settings.get("token") or environment.get("HCLOUD_TOKEN") or "")

    def kind_of(self, token: str) -> str:
        return KINDS[token]

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        refused = first(RULES, self, token, inputs, check=True)
        return [(refused.property, refused.text)] if refused else []

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        self._may(self._engine_token(), writes=True)
        with self.store.lock:
            if refused := first(RULES, self, token, inputs, check=False):
                raise refused
            made = self._make(token, inputs)
        if token == SERVER:
            keys = tuple(self.key(one).data["public_key"] for one in inputs.get("sshKeys") or ())  # type: ignore[union-attr]
            boot = cloudinit.interpret(str(inputs.get("userData") or ""), "root", keys)
            made.data["address"] = self.world.backing.start(made.id, boot, str(inputs["image"]).partition("-")[0])
            made.data["status"] = "running"
        return made.id, self._state(made)

    def _make(self, token: str, inputs: Mapping[str, Any]) -> Thing:
        kind = KINDS[token]
        made = self.store.add(
            kind, str(self.store.number()), str(inputs["name"]), labels=dict(inputs.get("labels") or {})
        )
        if kind == "key":
            body = str(inputs["publicKey"]).split()[1]
            digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
            made.data["fingerprint"] = ":".join(digest[at : at + 2] for at in range(0, 32, 2))
            made.data["public_key"] = str(inputs["publicKey"])
        elif kind == "firewall":
            made.data["rules"] = list(inputs.get("rules") or ())
        else:
            address = self.store.add("address", str(self.store.number()), f"primary_ip-{made.id}", labels={})
            address.data["server"] = made.id
            made.data.update(
                status="initializing", location=inputs["location"], type=inputs["serverType"], image=inputs["image"],
                firewalls=[str(int(one)) for one in inputs.get("firewallIds") or ()], address="", primary=address.id,
            )  # fmt: skip
        return made

    def _state(self, thing: Thing) -> dict[str, Any]:
        if thing.kind == "server":
            return {"status": thing.data["status"], "ipv4Address": thing.data["address"], "ipv6Address": "2001:db8::1"}
        if thing.kind == "key":
            return {"fingerprint": thing.data["fingerprint"]}
        return {}

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
        del state
        self._may(self._engine_token())
        thing = self.store.get(KINDS[token], identifier)
        if self._engine_token() == self.OTHER_PROJECT:
            return None
        return self._state(thing) if thing else None

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A firewall's rules are set anew; of nothing else of ours anything changes."""
        self._may(self._engine_token(), writes=True)
        thing = self.store.get(KINDS[token], identifier)
        if token != FIREWALL or thing is None or thing.data["labels"] != dict(inputs.get("labels") or {}):
            return super().update(token, identifier, state, inputs)
        thing.data["rules"] = list(inputs.get("rules") or ())
        return self._state(thing)

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:
        del state
        self._may(self._engine_token(), writes=True)
        if self._engine_token() == self.OTHER_PROJECT:
            return  # 404, which the provider takes for gone
        if thing := self.store.get(KINDS[token], identifier):
            self._remove(thing)

    def engine_text(self, refused: Refused) -> str:
        if not refused.code:
            return _LISTED.format(refused.text)
        text = f"{refused.text} ({refused.code}, {secrets.token_hex(8)})"
        return f"sdk-v2/provider2.go:572: sdk.helper_schema: {text}: provider=hcloud@1.43.3\n{_LISTED.format(text)}"

    # -- what both do -------------------------------------------------------------------------------------------------

    def key(self, name_or_id: Any) -> Thing | None:
        """A key, as the API looks it up: by identifier, then by name."""
        keys = self.store.alive("key")
        return next((one for one in keys if str(name_or_id) in (one.id, one.name)), None)

    def _remove(self, thing: Thing) -> None:
        with self.store.lock:
            if thing.kind == "firewall" and self._users(thing):
                raise Refused(IN_USE[0].format(id=thing.id), "resource_in_use", 422)
            if thing.kind == "server" and (address := self.store.get("address", thing.data["primary"])):
                self.store.remove(address)
            self.store.remove(thing)
        if thing.kind == "server":
            self.world.backing.remove(thing.id)

    def offer(self, server_type: str) -> None:
        TYPES[server_type] = ("x86", _EUROPE)

    def vanish(self, thing: Thing) -> None:
        self._remove(thing)

    def _users(self, firewall: Thing) -> list[Thing]:
        return [one for one in self.store.alive("server") if firewall.id in one.data["firewalls"]]

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        del inputs
        return {
            # https://github.com/hetzneronline/community-content/issues/933
            faults.QUOTA: Refused("server limit exceeded", "resource_limit_exceeded", 403),
            # https://github.com/hcloud-k8s/terraform-hcloud-kubernetes/issues/126
            faults.STOCK: Refused("error during placement", "resource_unavailable", 412),
            faults.THROTTLED: Refused("limit of 3600 requests per hour reached", "rate_limit_exceeded", 429),
            faults.UNAUTHORIZED: Refused("unable to authenticate", "unauthorized", 401),
            faults.OUTAGE: Refused("Service unavailable", "unavailable", 503),
            faults.TIMEOUT: Refused("context deadline exceeded"),
        }[effect]

    def _may(self, token: str, *, writes: bool = False) -> None:
        if token not in (self.TOKEN, self.READ_ONLY, self.ROTATED, self.OTHER_PROJECT):
            raise self.words(faults.UNAUTHORIZED, {})
        if writes and token == self.READ_ONLY:
            raise Refused("token is only allowed to perform GET requests", "token_readonly", 403)

    # -- the API ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self._may(token, writes=request.method != "GET")
        parts = request.path.strip("/").split("/")[1:]  # after v1
        if parts == ["locations"]:
            self.world.api(Call(self.name, "login"))
            return self._page(request, "locations", [{"id": at, "name": one} for at, one in enumerate(LOCATIONS, 1)])
        if parts[0] == "actions" and len(parts) == 2:
            return Response(json={"action": self._action(parts[1], None)})
        kind = ROUTES.get(parts[0], "")
        if kind and token == self.OTHER_PROJECT and len(parts) == 1 and request.method == "GET":
            self.world.api(Call(self.name, "list", kind))
            return self._page(request, parts[0], [])
        if not kind or token == self.OTHER_PROJECT:
            raise Refused("not found", "not_found", 404)
        if len(parts) == 1 and request.method == "GET":
            self.world.api(Call(self.name, "list", kind))
            return self._page(request, parts[0], [self._shown(one) for one in self._listed(kind, request)])
        thing = self.store.get(kind, parts[1]) if len(parts) > 1 else None
        if request.method == "GET":
            self.world.api(Call(self.name, "read", kind, name=thing.name if thing else ""))
        if thing is None:
            raise Refused(f"{parts[0].removesuffix('s')} with ID '{parts[-1]}' not found", "not_found", 404)
        if request.method == "DELETE":
            return self._deleted(thing)
        return Response(json={parts[0].removesuffix("s"): self._shown(thing)})

    def _deleted(self, thing: Thing) -> Response:
        call = Call(self.name, "delete", thing.kind, thing.data.get("location", ""), thing.name)
        if self.world.api(call) != faults.LIES:
            self._remove(thing)
        if thing.kind == "server":
            return Response(json={"action": self._action(str(self.store.number()), thing)})
        return Response(204)

    def _action(self, identifier: str, thing: Thing | None) -> dict[str, Any]:
        now = _time(datetime.datetime.now(datetime.UTC).timestamp())
        resources = [{"id": int(thing.id), "type": "server"}] if thing else []
        return {
            "id": int(identifier), "command": "delete_server", "status": "success", "progress": 100, "started": now,
            "finished": now, "resources": resources, "error": None,
        }  # fmt: skip

    def _listed(self, kind: str, request: Request) -> list[Thing]:
        if not hasattr(self, "_shelf"):
            self._shelf: dict[tuple[str, ...], list[Thing]] = {}
        key = (kind, request.query.get("label_selector", ""), request.query.get("name", ""))
        if int(request.query.get("page", "1")) > 1 and key in self._shelf:
            return self._shelf[key]  # later pages are of the same list
        self._shelf[key] = self.store.listed(kind, lambda one: _selected(one, key[1]) and key[2] in ("", one.name))
        return self._shelf[key]

    def _page(self, request: Request, name: str, things: list[dict[str, Any]]) -> Response:
        page = int(request.query.get("page", "1"))
        last = max(1, -(-len(things) // PAGE))
        meta = {
            "page": page, "per_page": PAGE, "previous_page": page - 1 or None,
            "next_page": page + 1 if page < last else None, "last_page": last, "total_entries": len(things),
        }  # fmt: skip
        return Response(json={name: things[(page - 1) * PAGE : page * PAGE], "meta": {"pagination": meta}})

    def _shown(self, thing: Thing) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": int(thing.id), "name": thing.name, "labels": thing.data["labels"], "created": _time(thing.made_at)
        }  # fmt: skip
        data = thing.data
        if thing.kind == "server":
            shown |= {
                "status": data["status"], "location": {"id": 1, "name": data["location"]}, "volumes": [],
                "public_net": {
                    "ipv4": {"id": int(data["primary"]), "ip": data["address"], "blocked": False, "dns_ptr": ""},
                    "ipv6": None, "floating_ips": [],
                    "firewalls": [{"id": int(one), "status": "applied"} for one in data["firewalls"]],
                },
            }  # fmt: skip
        elif thing.kind == "firewall":
            users = [{"type": "server", "server": {"id": int(one.id)}} for one in self._users(thing)]
            shown |= {"rules": [_rule(one) for one in data["rules"]], "applied_to": users}
        elif thing.kind == "key":
            shown |= {"fingerprint": data["fingerprint"], "public_key": data["public_key"]}
        elif thing.kind == "address":
            server = self.store.get("server", data.get("server", ""))
            shown |= {
                "ip": "203.0.113.1", "type": "ipv4", "assignee_type": "server", "auto_delete": True, "blocked": False,
                "assignee_id": int(server.id) if server else None, "dns_ptr": [], "protection": {"delete": False},
            }  # fmt: skip
        elif thing.kind == "disk":
            shown |= {"server": None, "size": 10, "status": "available"}
        return shown

    def error(self, refused: Refused) -> Response:
        body = {"error": {"code": refused.code or "server_error", "message": refused.text, "details": {}}}
        return Response(refused.status, body, {"X-Correlation-Id": secrets.token_hex(8)})


def _selected(thing: Thing, selector: str) -> bool:
    labels = thing.data["labels"]
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value.lstrip("=")):
            return False
    return True


def _rule(given: Mapping[str, Any]) -> dict[str, Any]:
    """A firewall's rule, as the API shows what the provider was given."""
    return {
        "direction": given["direction"], "protocol": given["protocol"], "port": given.get("port"),
        "source_ips": list(given.get("sourceIps") or ()), "destination_ips": list(given.get("destinationIps") or ()),
        "description": given.get("description"),
    }  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


VENDOR = Hetzner
