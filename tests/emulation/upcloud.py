"""UpCloud, emulated: it says what the vendor's API and Terraform provider are known to say. The vendor was not asked.

Sources of the routes and their fields: https://developers.upcloud.com/1.3 and the client ``upcloud-api`` 2.9. Where a
rule is documented and its words are not, the words are ours, and the source says so.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from emulation import cloudinit, faults
from emulation.faults import Call
from emulation.refusals import Refused, Rule, first
from emulation.store import PAGE, Thing
from emulation.vendor import Request, Response, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ZONES = ("de-fra1", "fi-hel1", "fi-hel2", "nl-ams1", "uk-lon1", "us-nyc1", "sg-sin1")
GPU_ZONES = ("fi-hel2",)
PLANS = [
    "1xCPU-1GB", "1xCPU-2GB", "2xCPU-4GB", "4xCPU-8GB", "8xCPU-32GB", "DEV-1xCPU-1GB-10GB", "DEV-1xCPU-1GB",
    "DEV-2xCPU-4GB", "CLOUDNATIVE-2xCPU-4GB", "CLOUDNATIVE-8xCPU-64GB", "HICPU-8xCPU-12GB", "HIMEM-2xCPU-16GB",
    "GPU-8xCPU-64GB-1xL40S", "GPU-SPOT-8xCPU-64GB-1xL40S",
]  # fmt: skip
"""Some of the vendor's, not its full list."""

TEMPLATES = {
    "Ubuntu Server 24.04 LTS (Noble Numbat)": "01000000-0000-4000-8000-000030240200",
    "Debian GNU/Linux 12 (Bookworm)": "01000000-0000-4000-8000-000020070100",
}
TIERS = ("maxiops", "standard", "hdd")

SERVER, RULES_OF_SERVER = "upcloud:index/server:Server", "upcloud:index/serverFirewallRules:ServerFirewallRules"
KINDS = {SERVER: "server", RULES_OF_SERVER: "firewall"}

_PROVIDER = "https://github.com/UpCloudLtd/terraform-provider-upcloud/blob/main/internal/service"
_CODES = "https://github.com/UpCloudLtd/upcloud-java-api/blob/master/docs/ErrorCode.md (the code; the words are ours)"
_FRAMEWORK = "words: github.com/hashicorp/terraform-plugin-framework-validators"

_DOMAIN = re.compile(r"(?=.{1,128}$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9-]{1,63})*\.?")
_LABEL = re.compile(r"[a-zA-Z0-9]+[a-zA-Z0-9_-]*")


def _template(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    return inputs.get("template") or {}


def _label_wrong(_: Any, inputs: Mapping[str, Any]) -> bool:
    labels = inputs.get("labels") or {}
    return any(not 2 <= len(key) <= 32 or not _LABEL.fullmatch(key) or len(labels[key]) > 255 for key in labels)


def _not_one_of(values: tuple[str, ...], read: Callable[[Mapping[str, Any]], Any]) -> Callable[[Any, Any], bool]:
    return lambda _, inputs: read(inputs) is not None and read(inputs) not in values


def _interface_type(inputs: Mapping[str, Any]) -> Any:
    return (inputs.get("networkInterfaces") or [{}])[0].get("type")


def _rule_value(field: str, wrong: Callable[[Any], bool]) -> Callable[[Mapping[str, Any]], Any]:
    return lambda inputs: next(
        (rule[field] for rule in inputs.get("firewallRules") or () if rule.get(field) and wrong(rule[field])), None
    )


def _no_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return True
    return False


_WRONG_ACTION = _rule_value("action", lambda said: said not in ("accept", "drop"))
_WRONG_PROTOCOL = _rule_value("protocol", lambda said: said not in ("tcp", "udp", "icmp"))
_WRONG_START = _rule_value("sourceAddressStart", _no_address)


def _half_a_range(inputs: Mapping[str, Any]) -> str:
    for rule in inputs.get("firewallRules") or ():
        for end in ("sourceAddress", "destinationAddress", "sourcePort", "destinationPort"):
            if bool(rule.get(f"{end}Start")) != bool(rule.get(f"{end}End")):
                return end
    return ""


def _port_without_protocol(_: Any, inputs: Mapping[str, Any]) -> bool:
    return any(
        (rule.get("sourcePortStart") or rule.get("destinationPortStart")) and rule.get("protocol") not in ("tcp", "udp")
        for rule in inputs.get("firewallRules") or ()
    )


RULES: tuple[Rule, ...] = (
    # before the API is asked, by the provider
    Rule(
        "hostname-too-long", SERVER,
        lambda _, inputs: len(str(inputs.get("hostname"))) > 128,
        "Attribute hostname string length must be between 1 and 128, got: {length}",
        f"{_PROVIDER}/server/server.go, hostname; {_FRAMEWORK}",
        values=lambda _, inputs: {"length": len(inputs["hostname"])}, property="hostname",
    ),
    Rule(
        "hostname-no-domain", SERVER,
        lambda _, inputs: not _DOMAIN.fullmatch(str(inputs.get("hostname"))),
        "Attribute hostname is not a valid domain name, got: {hostname}",
        f"{_PROVIDER}/server/server.go, hostname (IsDomainName; the words are ours)",
        property="hostname",
    ),
    Rule(
        "title-too-long", SERVER,
        lambda _, inputs: len(str(inputs.get("title") or "x")) > 255,
        "Attribute title string length must be between 1 and 255, got: {length}",
        f"{_PROVIDER}/server/server.go, title; {_FRAMEWORK}",
        values=lambda _, inputs: {"length": len(inputs["title"])}, property="title",
    ),
    Rule(
        "plan-unknown", SERVER,
        lambda _, inputs: inputs.get("plan") not in PLANS,
        "Invalid plan: expected plan to be one of [{plans}], got {plan}",
        f"{_PROVIDER}/server/validators.go, validatePlan",
        values=lambda _, inputs: {"plans": ", ".join(PLANS), "plan": inputs.get("plan")}, property="plan",
    ),
    Rule(
        "zone-unknown", SERVER,
        lambda _, inputs: inputs.get("zone") not in ZONES,
        "Invalid zone: expected zone to be one of [{zones}], got {zone}",
        f"{_PROVIDER}/server/validators.go, validateZone",
        values=lambda _, inputs: {"zones": ", ".join(ZONES), "zone": inputs.get("zone")}, property="zone",
    ),
    Rule(
        "disk-size", SERVER,
        lambda _, inputs: not 10 <= _template(inputs).get("size", 10) <= 2048,
        "Attribute template[0].size value must be between 10 and 2048, got: {size}",
        f"{_PROVIDER}/server/server.go, template.size; {_FRAMEWORK}",
        values=lambda _, inputs: _template(inputs), property="template",
    ),
    Rule(
        "interface-type", SERVER, _not_one_of(("public", "private", "utility"), _interface_type),
        'Attribute network_interface[0].type value must be one of: ["private" "utility" "public"], got: "{type}"',
        f"{_PROVIDER}/server/server.go, network_interface.type; {_FRAMEWORK}",
        values=lambda _, inputs: {"type": _interface_type(inputs)}, property="networkInterfaces",
    ),
    Rule(
        "label", SERVER, _label_wrong,
        "Attribute labels: keys must have 2 to 32 characters and match ^([a-zA-Z0-9])+([a-zA-Z0-9_-])*$, values 255",
        f"{_PROVIDER}/../utils/labels.go (the words are ours)",
        property="labels",
    ),
    Rule(
        "firewall-action", RULES_OF_SERVER, lambda _, inputs: _WRONG_ACTION(inputs) is not None,
        'Attribute firewall_rule.action value must be one of: ["accept" "drop"], got: "{wrong}"',
        f"{_PROVIDER}/firewall/firewall.go, action; {_FRAMEWORK}",
        values=lambda _, inputs: {"wrong": _WRONG_ACTION(inputs)}, property="firewallRules",
    ),
    Rule(
        "firewall-protocol", RULES_OF_SERVER, lambda _, inputs: _WRONG_PROTOCOL(inputs) is not None,
        'Attribute firewall_rule.protocol value must be one of: ["" "tcp" "udp" "icmp"], got: "{wrong}"',
        f"{_PROVIDER}/firewall/firewall.go, protocol; {_FRAMEWORK}",
        values=lambda _, inputs: {"wrong": _WRONG_PROTOCOL(inputs)}, property="firewallRules",
    ),
    Rule(
        "firewall-address-no-address", RULES_OF_SERVER, lambda _, inputs: _WRONG_START(inputs) is not None,
        "expected source_address_start to contain a valid IPv4 address, got: {wrong}",
        f"{_PROVIDER}/firewall/firewall.go, source_address_start (IsIPv4Address: a CIDR is none)",
        values=lambda _, inputs: {"wrong": _WRONG_START(inputs)}, property="firewallRules",
    ),
    # by the API
    Rule(
        "template-unknown", SERVER,
        lambda _, inputs: _template(inputs).get("storage") not in (*TEMPLATES, *TEMPLATES.values()),
        "The storage has an invalid value.",
        "the provider passes a title that it does not find on: server.go, Create; the API wants a UUID: "
        "https://github.com/UpCloudLtd/upcloud-java-api/blob/master/docs/ErrorCode.md (the words are ours)",
        "STORAGE_INVALID",
    ),
    Rule(
        "tier-unknown", SERVER,
        lambda _, inputs: _template(inputs).get("tier", "maxiops") not in TIERS,
        "The tier has an invalid value.", _CODES, "TIER_INVALID",
    ),
    Rule(
        "metadata-off", SERVER,
        lambda _, inputs: not inputs.get("metadata"),
        "Metadata must be enabled when cloning a cloud-init template",
        "public Terraform modules that quote the API: 'Metadata must be enabled when cloning a cloud-init template', "
        'type="METADATA_DISABLED_ON_CLOUD-INIT"',
        "METADATA_DISABLED_ON_CLOUD-INIT", 409,
    ),
    Rule(
        "gpu-not-in-zone", SERVER,
        lambda _, inputs: str(inputs.get("plan")).startswith("GPU-") and inputs.get("zone") not in GPU_ZONES,
        "There are not enough resources available in the zone for the requested server.",
        "GPUs are in some zones only: server.go, serverDescription ('upctl zone devices'); the code: "
        "https://github.com/UpCloudLtd/upcloud-java-api/blob/master/docs/ErrorCode.md (the words are ours)",
        "SERVER_RESOURCES_UNAVAILABLE", 409,
    ),
    Rule(
        "developer-plan-twice-only", SERVER,
        lambda vendor, inputs: inputs.get("plan") == "DEV-1xCPU-1GB-10GB"
        and sum(one.data["plan"] == inputs["plan"] for one in vendor.store.alive("server")) >= 2,
        "The plan DEV-1xCPU-1GB-10GB is restricted to 2 instances per account.",
        "https://upcloud.com/docs/products/cloud-servers/configurations (the rule; code and words are ours)",
        "SERVER_PLAN_LIMIT_REACHED", 403,
    ),
    Rule(
        "firewall-half-a-range", RULES_OF_SERVER, lambda _, inputs: bool(_half_a_range(inputs)),
        "IP address and port ranges must have both start and end values specified.",
        f"{_PROVIDER}/firewall/firewall.go, ruleDescription (the rule; the code is ours)",
        "FIREWALL_RULE_INVALID",
    ),
    Rule(
        "firewall-port-without-protocol", RULES_OF_SERVER, _port_without_protocol,
        "Source and destination port numbers can only be set if the protocol is TCP or UDP.",
        f"{_PROVIDER}/firewall/firewall.go, ruleDescription (the rule; the code is ours)",
        "FIREWALL_RULE_INVALID",
    ),
    Rule(
        "firewall-without-server", RULES_OF_SERVER,
        lambda vendor, inputs: vendor.store.get("server", str(inputs.get("serverId"))) is None,
        "The server {serverId} does not exist.",
        "https://github.com/UpCloudLtd/upcloud-go-api, upcloud/error_test.go",
        "SERVER_NOT_FOUND", 404,
    ),
)  # fmt: skip

STARTED = "The operation is not allowed while the server {id} is in state '{state}'."
"""With the code SERVER_STATE_ILLEGAL, 409: as public programs quote it."""

ATTACHED = "The storage {id} is attached to a server."
"""With the code STORAGE_IN_USE, 409: the code is of ErrorCode.md, the words are ours."""


_FIREWALL = "firewall: "
"""Marks a refusal of the firewall's rules until the provider's words are put around it."""


class UpCloud(Vendor):
    """See the module."""

    name = "upcloud"
    package = "upcloud"

    TOKEN = "ucat_emulated"  # noqa: S105 - opens nothing

    def variables(self, url: str, folder: Path) -> dict[str, str]:
        del folder
        return {"UPCLOUD_TOKEN": self.TOKEN, "UPCLOUD_DEBUG_API_BASE_URL": url}

    # -- the engine ---------------------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        given = settings.get("token") or environment.get("UPCLOUD_TOKEN")
        if not given:
            # terraform-provider-upcloud, internal/config: NewFromEnv of upcloud-go-api; the words are ours
            raise Refused("Authentication credentials not defined: set UPCLOUD_TOKEN, or a username and a password")
        if given != self.TOKEN:
            raise self.words(faults.UNAUTHORIZED, {})

    def kind_of(self, token: str) -> str:
        return KINDS[token]

    def name_of(self, token: str, inputs: Mapping[str, Any]) -> str:
        if token == SERVER:
            return str(inputs.get("hostname") or "")
        server = self.store.get("server", str(inputs.get("serverId")))
        return f"{server.name}-firewall" if server else ""

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        refused = first(RULES, self, token, inputs, check=True)
        return [(refused.property, refused.text)] if refused else []

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        with self.store.lock:
            if refused := first(RULES, self, token, inputs, check=False):
                if token == RULES_OF_SERVER:
                    refused.text = f"{_FIREWALL}{refused.text}"
                raise refused
            if token == RULES_OF_SERVER:
                server = self._server(inputs["serverId"])
                server.data["firewall_rules"] = list(inputs.get("firewallRules") or ())
                return server.id, {}
            server = self._make(inputs)
        login = inputs.get("login") or {}
        boot = cloudinit.interpret(
            str(inputs.get("userData") or ""), str(login.get("user") or "root"), tuple(login.get("keys") or ())
        )
        image = str(_template(inputs)["storage"]).partition(" ")[0].lower()
        server.data["address"] = self.world.backing.start(server.id, boot, image)
        server.data["state"] = "started"
        return server.id, self._state(server, inputs)

    def _make(self, inputs: Mapping[str, Any]) -> Thing:
        wanted, zone = _template(inputs), inputs["zone"]
        server = self.store.add(
            "server", str(uuid.uuid4()), str(inputs.get("title") or inputs["hostname"]), zone=zone, plan=inputs["plan"],
            labels=dict(inputs.get("labels") or {}), state="maintenance", address="", firewall=inputs.get("firewall"),
            hostname=inputs["hostname"],
        )  # fmt: skip
        title = str(wanted.get("title") or f"terraform-{inputs['hostname']}-disk")
        # a disk made of a template has no labels, whatever its server has
        disk = self.store.add(
            "disk", str(uuid.uuid4()), title, zone=zone, tier=wanted.get("tier", "maxiops"),
            size=wanted.get("size", 10), server=server.id,
        )  # fmt: skip
        server.data["disk"] = disk.id
        return server

    def _state(self, server: Thing, inputs: Mapping[str, Any]) -> dict[str, Any]:
        interfaces = [dict(one) for one in inputs.get("networkInterfaces") or ()]
        for one in interfaces:
            one |= {"ipAddress": server.data["address"], "ipAddressFamily": "IPv4", "macAddress": "6e:d7:1b:bf:2e:0d"}
        return {
            "title": server.name,
            "networkInterfaces": interfaces,
            "template": {**_template(inputs), "id": server.data["disk"], "address": "virtio"},
        }

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
        server = self.store.get("server", identifier)
        if server is None:
            return None
        return self._state(server, state) if token == SERVER else {}

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A server's rules are set anew, all at once; of nothing else of ours anything changes."""
        server = self.store.get("server", identifier)
        if token != RULES_OF_SERVER or server is None or inputs.get("serverId") != server.id:
            return super().update(token, identifier, state, inputs)
        server.data["firewall_rules"] = list(inputs.get("firewallRules") or ())
        return {}

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:
        server = self.store.get("server", identifier)
        if server is None:
            return
        if token == RULES_OF_SERVER:
            server.data["firewall_rules"] = []
            return
        # the provider stops the server, deletes it, then the disk of its template
        self._remove(server, with_disk=bool(state.get("template")))

    def engine_text(self, refused: Refused) -> str:
        if not refused.code:
            return refused.text
        what = "Unable to create firewall rules" if refused.text.startswith(_FIREWALL) else "Unable to create server"
        text = refused.text.removeprefix(_FIREWALL)
        said = f"Error: {text} (type={refused.code}, status={refused.status}, correlation_id=01EMULATED)"
        return f"1 error occurred:\n\t* {what}: {said}\n\n"

    # -- what both do -------------------------------------------------------------------------------------------------

    def _server(self, identifier: str) -> Thing:
        found = self.store.get("server", identifier)
        if found is None:
            raise Refused(f"The server {identifier} does not exist.", "SERVER_NOT_FOUND", 404)
        return found

    def _remove(self, server: Thing, *, with_disk: bool) -> None:
        with self.store.lock:
            disk = self.store.get("disk", server.data["disk"])
            if disk and with_disk:
                self.store.remove(disk)
            elif disk:
                disk.data["server"] = ""
            self.store.remove(server)
        self.world.backing.remove(server.id)

    def offer(self, server_type: str) -> None:
        PLANS.append(server_type)

    def vanish(self, thing: Thing) -> None:
        self._remove(thing, with_disk=False)

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        del inputs
        refused = {
            # codes: https://developers.upcloud.com/1.3, as public programs list them; the words are ours
            faults.QUOTA: ("Core limit reached", "SERVER_CORE_LIMIT_REACHED", 403),
            faults.STOCK: ("There are not enough resources available in the zone", "SERVER_RESOURCES_UNAVAILABLE", 409),
            faults.THROTTLED: ("Too Many Requests", "RATE_LIMITED", 429),
            faults.UNAUTHORIZED: (
                "Authentication failed using the given username and password.", "AUTHENTICATION_FAILED", 401
            ),
            faults.OUTAGE: ("The service is currently unavailable.", "SERVICE_UNAVAILABLE", 503),
            # upcloud-go-api, WaitForServerState
            faults.TIMEOUT: ("Error while waiting for server to be in started state: context deadline exceeded", "", 0),
        }[effect]  # fmt: skip
        return Refused(*refused)

    # -- the API ------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.TOKEN}":
            raise self.words(faults.UNAUTHORIZED, {})
        parts = request.path.removeprefix("/1.3").strip("/").split("/")
        head, rest = parts[0], parts[1:]
        if head == "account":
            self.world.api(Call(self.name, "login"))
            return Response(json={"account": {"credits": 10000, "username": "emulated"}})
        if head == "server" and not rest:
            return self._list("server", request, lambda rows: {"servers": {"server": rows}}, self._in_list)
        if head == "server":
            return self._on_server(request, rest)
        if head == "storage" and rest == ["private"]:
            return self._list("disk", request, lambda rows: {"storages": {"storage": rows}}, self._disk)
        if head == "storage" and len(rest) == 1:
            return self._on_disk(request, rest[0])
        if head == "ip_address" and not rest:
            return self._list("server", request, lambda rows: {"ip_addresses": {"ip_address": rows}}, self._address)
        raise Refused(f"nothing at {request.path}", "NOT_FOUND", 404)

    def error(self, refused: Refused) -> Response:
        body = {"error": {"error_code": refused.code, "error_message": refused.text}}
        return Response(refused.status or 500, json=body)

    def _list(
        self, kind: str, request: Request, wrapped: Callable[[list[Any]], Any], shown: Callable[[Thing], Any]
    ) -> Response:
        self.world.api(Call(self.name, "list", kind))
        key, _, value = request.query.get("label", "").partition("=")

        def labelled(thing: Thing) -> bool:
            labels = thing.data.get("labels", {})
            return not key or (key in labels and value in ("", labels[key]))

        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 100))
        if not offset:
            # one look for all pages: what appears between two of them is on none
            self._looked = getattr(self, "_looked", {})
            self._looked[kind, request.path] = self.store.listed(kind, labelled)
        things = self._looked[kind, request.path]
        return Response(json=wrapped([shown(one) for one in things[offset : offset + min(limit, PAGE)]]))

    def _on_server(self, request: Request, rest: list[str]) -> Response:
        server = self._server(rest[0])
        call = {"GET": "read", "POST": "stop", "DELETE": "delete"}[request.method]
        struck = self.world.api(Call(self.name, call, "server", server.data["zone"], server.name))
        if call == "read":
            if server.data.pop("stopping", False):
                server.data["state"] = "stopped"  # stopping only begins when it is asked for
                return Response(json={"server": {**self._details(server), "state": "started"}})
            return Response(json={"server": self._details(server)})
        if call == "stop":
            if server.data["state"] != "started":
                raise Refused(STARTED.format(id=server.id, state=server.data["state"]), "SERVER_STATE_ILLEGAL", 409)
            server.data["stopping"] = True
            return Response(json={"server": self._details(server)})
        if server.data["state"] != "stopped":
            raise Refused(STARTED.format(id=server.id, state=server.data["state"]), "SERVER_STATE_ILLEGAL", 409)
        if struck != faults.LIES:
            self._remove(server, with_disk=request.query.get("storages") == "1")
        return Response(204)

    def _on_disk(self, request: Request, identifier: str) -> Response:
        disk = self.store.get("disk", identifier)
        if disk is None:
            raise Refused(f"The storage {identifier} does not exist.", "STORAGE_NOT_FOUND", 404)
        call = "read" if request.method == "GET" else "delete"
        struck = self.world.api(Call(self.name, call, "disk", disk.data["zone"], disk.name))
        if call == "read":
            return Response(json={"storage": self._disk(disk) | {"servers": {"server": _some(disk.data["server"])}}})
        if disk.data["server"]:
            raise Refused(ATTACHED.format(id=disk.id), "STORAGE_IN_USE", 409)
        if struck != faults.LIES:
            self.store.remove(disk)
        return Response(204)

    def _in_list(self, server: Thing) -> dict[str, Any]:
        labels = [{"key": key, "value": value} for key, value in server.data["labels"].items()]
        return {
            "uuid": server.id, "title": server.name, "hostname": server.data["hostname"], "zone": server.data["zone"],
            "plan": server.data["plan"], "state": server.data["state"], "labels": {"label": labels},
            "created": int(server.made_at),
        }  # fmt: skip

    def _details(self, server: Thing) -> dict[str, Any]:
        address = {"access": "public", "address": server.data["address"], "family": "IPv4", "part_of_plan": "yes"}
        return {**self._in_list(server), "ip_addresses": {"ip_address": [address]}}

    def _disk(self, disk: Thing) -> dict[str, Any]:
        return {
            "uuid": disk.id, "title": disk.name, "zone": disk.data["zone"], "tier": disk.data["tier"], "labels": [],
            "size": disk.data["size"], "state": "online", "type": "normal", "access": "private",
            "created": datetime.fromtimestamp(disk.made_at, UTC).isoformat(timespec="seconds"),
        }  # fmt: skip

    def _address(self, server: Thing) -> dict[str, Any]:
        return {"access": "public", "address": server.data["address"], "family": "IPv4", "server": server.id}


def _some(value: str) -> list[str]:
    return [value] if value else []


VENDOR = UpCloud
