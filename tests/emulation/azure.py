"""Azure, emulated: its Resource Manager over TLS, what its Pulumi provider does, and its refusals. No Azure was asked.

The provider's plugin comes over the world's own port. Azure's Python clients refuse to send a token without TLS, so the
Resource Manager and the login listen on a port of their own, with a certificate made for the occasion; the clients find
both as they find Azure Stack: ``ARM_METADATA_HOSTNAME``.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import re
import secrets
import ssl
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulation import azure_rules as rules
from emulation import cloudinit, faults
from emulation.faults import Call
from emulation.refusals import Refused, first
from emulation.store import PAGE
from emulation.vendor import Request, Response, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from emulation.store import Thing
    from emulation.world import World

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
TENANT = "99999999-8888-7777-6666-555555555555"
CLIENT = "22222222-3333-4444-5555-666666666666"

POLLS = 2
"""How often an operation says that it is not done yet."""

AFTER = {"retry-after-ms": "20"}
"""Azure sends ``Retry-After: 10`` and more; tests are in a hurry."""

TYPES = {
    "azure-native:resources:ResourceGroup": ("group", ""),
    "azure-native:network:VirtualNetwork": ("network", "Microsoft.Network/virtualNetworks"),
    "azure-native:network:Subnet": ("subnet", ""),
    "azure-native:network:NetworkSecurityGroup": ("firewall", "Microsoft.Network/networkSecurityGroups"),
    "azure-native:network:PublicIPAddress": ("address", "Microsoft.Network/publicIPAddresses"),
    "azure-native:network:NetworkInterface": ("interface", "Microsoft.Network/networkInterfaces"),
    "azure-native:compute:VirtualMachine": ("server", "Microsoft.Compute/virtualMachines"),
}
"""Our kind and Azure's type by Pulumi's."""

DISK = "Microsoft.Compute/disks"
KINDS = {kind_type.lower(): kind for kind, kind_type in [*TYPES.values(), ("disk", DISK)] if kind_type}
NAMES = {
    "group": "resourceGroupName",
    "network": "virtualNetworkName",
    "subnet": "subnetName",
    "firewall": "networkSecurityGroupName",
    "address": "publicIpAddressName",
    "interface": "networkInterfaceName",
    "server": "vmName",
}
"""Which input names a thing."""


@dataclass
class Operation:
    """One that runs on after its answer.

    Attributes:
        finish: what it does at its end.
        left: how often it is still asked for in vain.
        status: where it has ended: ``Succeeded`` or ``Failed``.
        refused: why it failed.
    """

    finish: Callable[[], None]
    left: int = POLLS
    status: str = ""
    refused: Refused | None = None


class Azure(Vendor):
    """See :class:`emulation.vendor.Vendor`."""

    name = "azure"
    package = "azure-native"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._secret, self._token = secrets.token_hex(16), secrets.token_hex(16)
        self._operations: dict[str, Operation] = {}
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._authority = b""
        self._server: Any = None

    def start(self) -> None:
        from emulation.world import _Handler, _Server

        class Handler(_Handler):
            """The same as for the others, but for the path and TLS."""

            def parse_request(self) -> bool:
                fine = super().parse_request()
                if fine:
                    self.path = f"/azure{self.path}"
                return fine

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            certify(Path(folder))
            context.load_cert_chain(Path(folder) / "cert.pem", Path(folder) / "key.pem")
            self._authority = (Path(folder) / "cert.pem").read_bytes()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.world = self.world
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Where it listens, host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def variables(self, url: str, folder: Path) -> dict[str, str]:  # noqa: ARG002 - it has a port of its own
        authorities = folder / "azure-ca.pem"
        authorities.write_bytes(self._authority)
        return {
            "ARM_SUBSCRIPTION_ID": SUBSCRIPTION,
            "ARM_TENANT_ID": TENANT,
            "ARM_CLIENT_ID": CLIENT,
            "ARM_CLIENT_SECRET": self._secret,
            "ARM_METADATA_HOSTNAME": self.host,
            "REQUESTS_CA_BUNDLE": str(authorities),
        }

    # -- the engine's provider ----------------------------------------------------------------------------------------

    def configure(self, settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:  # noqa: ARG002
        if not environment.get("ARM_SUBSCRIPTION_ID"):
            raise Refused(
                "A Subscription ID must be configured when authenticating as a Service Principal using a Client Secret."
            )
        if environment.get("ARM_CLIENT_SECRET") != self._secret:
            raise Refused(rules.BAD_LOGIN, "invalid_client", 401)

    def kind_of(self, token: str) -> str:
        return TYPES[token][0]

    def place(self, token: str, inputs: Mapping[str, Any]) -> str:  # noqa: ARG002
        location, zones = str(inputs.get("location") or ""), inputs.get("zones") or []
        return f"{location}-{zones[0]}" if zones else location

    def name_of(self, token: str, inputs: Mapping[str, Any]) -> str:
        return str(inputs.get(NAMES[self.kind_of(token)]) or "")

    def check(self, token: str, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        refused = first(rules.RULES, self, token, inputs, check=True)
        return [(refused.property, refused.text)] if refused else []

    def create(self, token: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        refused = first(rules.RULES, self, token, inputs, check=False)
        if refused:
            raise refused
        kind, kind_type = TYPES[token]
        name = self.name_of(token, inputs)
        identifier = self.identifier(kind, kind_type, name, inputs)
        if kind != "group" and self.group_of(identifier) is None:
            raise Refused(
                f"Resource group '{inputs['resourceGroupName']}' could not be found.", "ResourceGroupNotFound", 404
            )
        state: dict[str, Any] = {"name": name, "location": inputs.get("location"), "provisioningState": "Succeeded"}
        existing = self.store.get(kind, identifier)
        if existing:
            return identifier, {**state, **self._outputs(existing)}
        thing = self.store.add(kind, identifier, name, type=kind_type, **_kept(inputs))
        if kind == "address":
            thing.data["ipAddress"] = self.world.backing.reserve()
        if kind == "server":
            self._boot(thing)
        return identifier, {**state, **self._outputs(thing)}

    def read(self, token: str, identifier: str, state: Mapping[str, Any]) -> dict[str, Any] | None:  # noqa: ARG002
        thing = self.store.get(self.kind_of(token), identifier)
        return None if thing is None else {"name": thing.name, **self._outputs(thing)}

    def update(
        self, token: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A firewall's rules are set anew; of nothing else of ours anything changes."""
        thing = self.store.get(self.kind_of(token), identifier)
        if thing is None or thing.kind != "firewall" or thing.data.get("tags") != inputs.get("tags"):
            return super().update(token, identifier, state, inputs)
        thing.data.update(_kept(inputs))
        return {"name": thing.name, **self._outputs(thing)}

    def delete(self, token: str, identifier: str, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        thing = self.store.get(self.kind_of(token), identifier)
        if thing is not None:
            self._may_go(thing)
            self._remove(thing)

    def engine_text(self, refused: Refused) -> str:
        """As pulumi-azure-native prints the SDK's errors; the recorded refusals have the same form."""
        if not refused.code:
            return refused.text
        status = f"Status={refused.status} " if not refused.made else ""
        return f'{status}Code="{refused.code}" Message="{refused.text}"'

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def words(self, effect: str, inputs: Mapping[str, Any]) -> Refused:
        location, size = inputs.get("location") or "", (inputs.get("hardwareProfile") or {}).get("vmSize", "")
        if effect == faults.QUOTA:
            text, code, status = rules.QUOTA.format(family=rules.family(size), location=location)
            return Refused(text, code, status)
        if effect == faults.STOCK:
            if inputs.get("priority") == "Spot" or "vmName" not in inputs:
                text, code, status = rules.SOLD_OUT.format(size=size, location=location)
                return Refused(text, code, status)
            # accepted at first, refused when a machine was looked for: the VM stays, and is Failed
            zonal = bool(inputs.get("zones"))
            text, code, status = (rules.NO_ROOM_IN_ZONE if zonal else rules.NO_ROOM).format()
            return Refused(text, code, status, made=self._failed(inputs))
        if effect == faults.TIMEOUT:
            text, code, status = rules.TIMED_OUT.format(name=inputs.get("vmName", ""))
            self._failed(inputs)
            return Refused(text, code, status)
        text, code, status = {
            faults.THROTTLED: rules.THROTTLED,
            faults.UNAUTHORIZED: rules.UNAUTHORIZED,
        }.get(effect, rules.DOWN).format(subscription=SUBSCRIPTION)
        return Refused(text, code, status)

    def vanish(self, thing: Thing) -> None:
        """Azure evicts a spot VM: with the eviction policy Delete, the VM and what it deletes with it."""
        self._remove(thing)

    def _failed(self, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """The VM of ``inputs`` as a failed one, whether it was there or not."""
        name = inputs.get("vmName")
        if not name:
            return None
        kind_type = TYPES["azure-native:compute:VirtualMachine"][1]
        identifier = self.identifier("server", kind_type, name, inputs)
        thing = self.store.get("server", identifier) or self.store.add(
            "server", identifier, name, type=kind_type, **_kept(inputs)
        )
        thing.data["provisioningState"] = "Failed"
        return identifier, {**inputs, "name": name}

    # -- what exists --------------------------------------------------------------------------------------------------

    def identifier(self, kind: str, kind_type: str, name: str, inputs: Mapping[str, Any]) -> str:
        """The identifier in the Resource Manager."""
        group = name if kind == "group" else inputs.get("resourceGroupName", "")
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}"
        if kind == "group":
            return path
        if kind == "subnet":
            network = inputs.get("virtualNetworkName", "")
            return f"{path}/providers/Microsoft.Network/virtualNetworks/{network}/subnets/{name}"
        return f"{path}/providers/{kind_type}/{name}"

    def group_of(self, identifier: str) -> Thing | None:
        """The group that an identifier lies in; names are the same in capitals and small letters."""
        name = identifier.split("/")[4].lower()
        return next((one for one in self.store.alive("group") if one.name.lower() == name), None)

    def thing(self, identifier: str) -> Thing | None:
        """What an identifier means."""
        return next((one for one in self.store.alive() if one.id.lower() == identifier.lower()), None)

    def _boot(self, server: Thing) -> None:
        """Azure makes the disk, finds a machine, boots it, and waits until the guest says that it is there."""
        data = server.data
        disk = data["storageProfile"]["osDisk"]
        group = server.id.split("/providers/")[0]
        self.store.add(
            "disk",
            f"{group}/providers/{DISK}/{disk['name']}",
            disk["name"],
            type=DISK,
            location=data["location"],
            # an implicit disk gets the VM's tags
            tags=data.get("tags") or {},
            zones=data.get("zones"),
            managedBy=server.id,
        )
        profile = data["osProfile"]
        keys = tuple(one["keyData"] for one in profile["linuxConfiguration"]["ssh"]["publicKeys"])
        boot = cloudinit.interpret(
            base64.b64decode(profile.get("customData") or "").decode(), profile["adminUsername"], keys
        )
        image = "debian" if data["storageProfile"]["imageReference"]["publisher"] == "Debian" else "ubuntu"
        address = next((one.data["ipAddress"] for one in self._addresses_of(server)), "")
        data.update(powerState="running", provisioningState="Creating")
        self.world.backing.start(server.id, boot, image, address)
        data["provisioningState"] = "Succeeded"

    def _addresses_of(self, server: Thing) -> Iterator[Thing]:
        for reference in server.data["networkProfile"]["networkInterfaces"]:
            interface = self.thing(reference["id"])
            for one in interface.data["ipConfigurations"] if interface else []:
                address = self.thing((one.get("publicIPAddress") or {}).get("id", ""))
                if address:
                    yield address

    def _holder(self, thing: Thing) -> Thing | None:
        """What uses a thing, so that it can't be deleted."""
        identifier = thing.id.lower()
        return next((one for one in self.store.alive() if identifier in _used_by(one, thing.kind)), None)

    def _may_go(self, thing: Thing) -> None:
        holder = self._holder(thing) if thing.kind != "group" else None
        if holder is not None:
            text, code, status = rules.IN_USE[thing.kind].format(id=thing.id, name=thing.name, holder=holder.id)
            raise Refused(text, code, status)

    def _remove(self, thing: Thing) -> None:
        """Delete it in truth, with what goes along."""
        if thing.kind in ("group", "network"):
            inside = f"{thing.id.lower()}/"
            for one in self.store.alive():
                if one.id.lower().startswith(inside):
                    self.world.backing.remove(one.id)
                    self.store.remove(one)
        self.store.remove(thing)
        if thing.kind == "server":
            self.world.backing.remove(thing.id)
            self._remove_with_server(thing)

    def _remove_with_server(self, server: Thing) -> None:
        """Disk and interface, where the VM says so; the default keeps them."""
        if server.data["storageProfile"]["osDisk"].get("deleteOption") == "Delete":
            for one in self.store.alive("disk"):
                if one.data.get("managedBy") == server.id:
                    self.store.remove(one)
        for reference in server.data["networkProfile"]["networkInterfaces"]:
            interface = self.thing(reference["id"])
            if interface and reference.get("deleteOption") == "Delete":
                self.store.remove(interface)

    def _outputs(self, thing: Thing) -> dict[str, Any]:
        outputs = {"provisioningState": thing.data.get("provisioningState", "Succeeded")}
        if thing.kind == "address":
            outputs["ipAddress"] = thing.data["ipAddress"]
        return outputs

    # -- the Resource Manager -----------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        if request.path == "/metadata/endpoints":
            return Response(
                json={
                    "name": "Emulated",
                    "resourceManager": f"https://{self.host}/",
                    "authentication": {
                        "loginEndpoint": f"https://{self.host}",
                        "audiences": [f"https://{self.host}/", f"https://management.{self.host}/"],
                        "tenant": "common",
                        "identityProvider": "AAD",
                    },
                }
            )
        if not request.path.startswith("/subscriptions"):
            return self._log_in(request)
        if request.headers.get("authorization") != f"Bearer {self._token}":
            text, code, status = rules.NO_TOKEN.format()
            raise Refused(text, code, status)
        if "api-version" not in request.query:
            raise Refused("The api-version query parameter (?api-version=) is required for all requests.",
                          "MissingApiVersionParameter")  # fmt: skip
        path = urllib.parse.unquote(request.path)
        if path.split("/")[2].lower() != SUBSCRIPTION:
            raise Refused(f"The subscription '{path.split('/')[2]}' could not be found.", "SubscriptionNotFound", 404)
        below = path.partition(SUBSCRIPTION)[2]
        if not below:
            self.world.api(Call(self.name, "login"))
            return Response(json={"subscriptionId": SUBSCRIPTION, "displayName": "Emulated", "state": "Enabled"})
        if below.startswith("/operations/"):
            return self._operation(below.split("/")[2], request)
        if re.fullmatch(r"(?i)/resourcegroups|/resources|/providers/[^/]+/[^/]+", below):
            return self._list(below, request)
        return self._one(path, request)

    def error(self, refused: Refused) -> Response:
        headers = dict(AFTER) if refused.status == 429 else {}
        if refused.status == 401:
            headers["WWW-Authenticate"] = (
                f'Bearer authorization_uri="https://{self.host}/{TENANT}", error="invalid_token"'
            )
        if refused.code == "invalid_client":  # the login speaks OAuth
            return Response(401, {"error": refused.code, "error_description": refused.text, "error_codes": [7000215]})
        return Response(refused.status, {"error": {"code": refused.code, "message": refused.text}}, headers)

    def _log_in(self, request: Request) -> Response:
        tenant = request.path.split("/")[1]
        base = f"https://{self.host}/{tenant}"
        if request.path.endswith("/.well-known/openid-configuration"):
            return Response(
                json={
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                }
            )
        if request.path.endswith("/oauth2/v2.0/token"):
            form = {key: values[-1] for key, values in urllib.parse.parse_qs(request.body.decode()).items()}
            if tenant != TENANT or form.get("client_id") != CLIENT or form.get("client_secret") != self._secret:
                raise Refused(rules.BAD_LOGIN, "invalid_client", 401)
            return Response(json={"token_type": "Bearer", "expires_in": 3600, "access_token": self._token})
        return Response(404, {"error": {"code": "NotFound", "message": request.path}})

    def _list(self, below: str, request: Request) -> Response:
        token = request.query.get("$skiptoken", "")
        # pages of one list show one moment
        rows = self._lists.pop(token) if token else self._rows(below, request)
        page: dict[str, Any] = {"value": rows[:PAGE]}
        if rows[PAGE:]:
            token = f"page-{self.store.number()}"
            self._lists[token] = rows[PAGE:]
            query = urllib.parse.urlencode({**request.query, "$skiptoken": token})
            page["nextLink"] = f"https://{self.host}/subscriptions/{SUBSCRIPTION}{below}?{query}"
        return Response(json=page)

    def _rows(self, below: str, request: Request) -> list[dict[str, Any]]:
        kind = KINDS.get(below.lower().removeprefix("/providers/"), "")
        kind = "group" if below.lower() == "/resourcegroups" else kind
        self.world.api(Call(self.name, "list", kind))
        if below.lower() == "/resources":
            found = [one for each in KINDS.values() for one in self.store.listed(each, self._unfiltered(request))]
            return [self._row(one, properties=False) for one in found]
        status = request.query.get("statusOnly") == "true"
        return [self._row(one, status=status) for one in self.store.listed(kind)]

    @staticmethod
    def _unfiltered(request: Request) -> Callable[[Thing], bool]:
        if request.query.get("$filter"):
            raise Refused(f"the emulation knows no filter: {request.query['$filter']}", "InvalidFilter")
        return lambda _: True

    def _row(self, thing: Thing, *, properties: bool = True, status: bool = False) -> dict[str, Any]:
        data = thing.data
        made = datetime.datetime.fromtimestamp(thing.made_at, datetime.UTC).isoformat().replace("+00:00", "Z")
        state = data.get("provisioningState", "Succeeded")
        row: dict[str, Any] = {
            "id": thing.id,
            "name": thing.name,
            "type": data["type"] or "Microsoft.Resources/resourceGroups",
            "location": data["location"],
            "tags": data.get("tags") or {},
        }
        if data.get("zones"):
            row["zones"] = data["zones"]
        if data.get("managedBy"):
            row["managedBy"] = data["managedBy"]
        if not properties:
            # a copy that others made: the group in capitals, and nothing but the frame
            group = thing.id.split("/")[4]
            row["id"] = thing.id.replace(f"/resourceGroups/{group}/", f"/resourceGroups/{group.upper()}/", 1)
            return {**row, "createdTime": made, "provisioningState": state}
        inner: dict[str, Any] = {"provisioningState": state, "timeCreated": made}
        if thing.kind == "server":
            inner["hardwareProfile"], inner["networkProfile"] = data["hardwareProfile"], data["networkProfile"]
            if status:
                power = [] if state == "Failed" else [{"code": f"PowerState/{data.get('powerState', 'running')}"}]
                inner["instanceView"] = {"statuses": [{"code": f"ProvisioningState/{state.lower()}"}, *power]}
        if thing.kind == "disk":
            inner["diskState"] = "Attached" if self._holder(thing) else "Unattached"
        if thing.kind == "address":
            inner["ipAddress"] = data["ipAddress"]
            holder = self._holder(thing)
            if holder:
                inner["ipConfiguration"] = {"id": f"{holder.id}/ipConfigurations/first"}
        return {**row, "properties": inner}

    def _one(self, path: str, request: Request) -> Response:
        action = path.rpartition("/")[2] if request.method == "POST" else ""
        thing = self.thing(path.rpartition("/")[0] if action else path)
        if thing is None:
            if request.method == "HEAD":
                return Response(404, body=b"")
            group = self.group_of(path) if len(path.split("/")) > 4 else None
            if group is None or path.lower() == group.id.lower():
                raise Refused(
                    f"Resource group '{path.split('/')[4]}' could not be found.", "ResourceGroupNotFound", 404
                )
            if request.method == "DELETE":
                return Response(204, body=b"")
            raise Refused(
                f"The Resource '{'/'.join(path.split('/')[-3:])}' under resource group '{group.name}' was not found. "
                "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
                "ResourceNotFound",
                404,
            )
        if request.method == "HEAD":
            return Response(204, body=b"")
        if request.method == "DELETE":
            return self._delete(thing)
        if action.lower() == "poweroff":
            return self._begin(lambda: thing.data.update(powerState="stopped"))
        return Response(json=self._row(thing))

    # -- operations that run on ---------------------------------------------------------------------------------------

    def _delete(self, thing: Thing) -> Response:
        call = Call(self.name, "delete", thing.kind, thing.data["location"], thing.name)
        late, failed = "", None
        try:
            late = self.world.api(call, thing.data)
        except Refused as refused:
            if refused.status < 500 or self.name in self.world.down:
                raise
            failed = refused  # accepted, and then it fails
        self._may_go(thing)

        def finish() -> None:
            if failed:
                raise failed
            if late != faults.LIES:
                self._remove(thing)

        before = thing.data.get("provisioningState", "Succeeded")
        thing.data["provisioningState"] = "Deleting"
        return self._begin(finish, lambda: thing.data.update(provisioningState=before), group=thing.kind == "group")

    def _begin(
        self, finish: Callable[[], None], undo: Callable[[], object] = lambda: None, *, group: bool = False
    ) -> Response:
        def carefully() -> None:
            try:
                finish()
            finally:
                undo()

        number = f"op-{self.store.number()}"
        self._operations[number] = Operation(carefully)
        url = f"https://{self.host}/subscriptions/{SUBSCRIPTION}/operations/{number}?api-version=2024-01-01"
        location = {"Location": f"{url}&t=location"}  # answers 202 until the end; others tell the status in a document
        named = location if group else {**location, "Azure-AsyncOperation": url}
        return Response(202, headers={**AFTER, **named}, body=b"")

    def _operation(self, number: str, request: Request) -> Response:
        operation = self._operations[number]
        with self.store.lock:
            operation.left -= 1
            if operation.left < 0 and not operation.status:
                operation.status = "Succeeded"
                try:
                    operation.finish()
                except Refused as refused:
                    operation.status, operation.refused = "Failed", refused
        if request.query.get("t") == "location":
            if not operation.status:
                again = f"https://{self.host}{request.path}?api-version=2024-01-01&t=location"
                return Response(202, headers={**AFTER, "Location": again}, body=b"")
            if operation.refused:
                raise operation.refused
            return Response(200, body=b"")
        told: dict[str, Any] = {"name": number, "status": operation.status or "InProgress"}
        if operation.refused:
            told["error"] = {"code": operation.refused.code, "message": operation.refused.text}
        return Response(json=told, headers=AFTER)


def certify(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority, good for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emulated Azure")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with contextlib.suppress(OSError):
        (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _used_by(thing: Thing, kind: str) -> set[str]:
    """The identifiers, in small letters, of things of a kind that a thing uses."""
    data, used = thing.data, set[str]()
    if thing.kind == "server":
        used = {one["id"] for one in data["networkProfile"]["networkInterfaces"]}
        used.add(f"{thing.id.split('/providers/')[0]}/providers/{DISK}/{data['storageProfile']['osDisk']['name']}")
    if thing.kind == "interface":
        used.add((data.get("networkSecurityGroup") or {}).get("id", ""))
        for one in data["ipConfigurations"]:
            subnet = (one.get("subnet") or {}).get("id", "")
            used |= {subnet, (one.get("publicIPAddress") or {}).get("id", "")}
            if kind == "network":
                used.add(subnet.rpartition("/subnets/")[0])
    return {one.lower() for one in used}


def _kept(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if not key.startswith("__")} | {
        "location": inputs.get("location") or ""
    }


VENDOR = Azure
