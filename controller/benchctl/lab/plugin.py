"""Pulumi's provider protocol in small: what is served is a plain object, the gRPC is here.

A provider plugin is a program named ``pulumi-resource-NAME`` on PATH. The engine starts it, reads the port that it
prints on stdout, and calls it over gRPC. Calls of one program come at once, each in a thread of its own.

Protocol: https://www.pulumi.com/docs/iac/using-pulumi/extending-pulumi/build-a-provider/ and ``provider.proto`` of
Pulumi's SDK, whose generated code this module serves.
"""

from __future__ import annotations

import sys
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

THREADS = 32
"""Calls that are served at once."""

SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 - the key by which Pulumi marks special values, not a secret
"""Key of special values in Pulumi's property maps (``resource.SigKey`` in its SDK)."""


class RefusedError(Exception):
    """The cloud refuses: the text is what the engine shows, as a vendor's provider words it.

    Args:
        text: the vendor's words.
        made: where the resource exists all the same: its identifier and state, which the engine keeps.
    """

    def __init__(self, text: str, made: tuple[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__(text)
        self.made = made


class Provider(Protocol):
    """What a provider does; every method may raise :class:`RefusedError`.

    Types are tokens, as ``hcloud:index/server:Server``; properties are plain values, secrets among them unwrapped.
    """

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take the provider's own settings."""
        ...

    def check(self, kind: str, inputs: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """What is wrong with the inputs, before anything is made: pairs of property and reason."""
        ...

    def create(self, kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Make a resource; returns its identifier and its properties, inputs included."""
        ...

    def read(self, kind: str, identifier: str, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Its properties as they are now; nothing when it is gone."""
        ...

    def update(
        self, kind: str, identifier: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Change it in place; returns its properties."""
        ...

    def delete(self, kind: str, identifier: str, state: Mapping[str, Any]) -> None:
        """Remove it; what is gone is removed."""
        ...

    def invoke(self, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer a provider's function, as ``aws:ec2/getAmi:getAmi``."""
        ...


def serve(provider: Provider, name: str, version: str) -> None:
    """Serve until the engine hangs up; prints the port on stdout, as the protocol wants it.

    Args:
        provider: what is served.
        name: the package, as in ``pulumi-resource-NAME``.
        version: of the plugin.
    """
    import grpc
    from pulumi.runtime.proto import provider_pb2_grpc

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS),
        options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)],
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(_servicer(provider, name, version), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    _until_parent_ends(server)


def _until_parent_ends(server: Any) -> None:
    """The engine kills its plugins; an engine that was killed itself leaves them, and they finish what they do."""
    import os

    parent = os.getppid()
    while os.getppid() == parent:
        if server.wait_for_termination(timeout=1.0) is False:
            return
    server.stop(grace=None).wait()
    # what runs in a thread is finished first: the pool's threads are joined at exit
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(timeout=600)


def plain(struct: Any) -> dict[str, Any]:
    """A property map as plain values; secrets and outputs are unwrapped, whole numbers are integers."""
    from google.protobuf import json_format

    return {key: _plain(value) for key, value in json_format.MessageToDict(struct).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if SECRET in value:
            return _plain(value.get("value"))
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _struct(values: Mapping[str, Any]) -> Any:
    from google.protobuf import struct_pb2

    made = struct_pb2.Struct()
    made.update(dict(values))
    return made


def _kind(urn: str) -> str:
    """The type in a URN: ``urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME``."""
    return urn.split("::")[2].rpartition("$")[2]


def _servicer(provider: Provider, name: str, version: str) -> Any:  # noqa: C901 - one method per call of the protocol
    import grpc
    from google.protobuf import empty_pb2
    from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

    def refuse(context: Any, error: RefusedError) -> None:
        context.abort(grpc.StatusCode.UNKNOWN, str(error))

    def initialisation_failed(context: Any, error: RefusedError, inputs: Mapping[str, Any]) -> None:
        """The resource exists and is not what was asked for: the engine keeps it in its state, to be destroyed."""
        from google.protobuf import any_pb2
        from google.rpc import status_pb2
        from grpc_status import rpc_status

        identifier, state = error.made or ("", {})
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=identifier, properties=_struct(state), reasons=[str(error)], inputs=_struct(inputs)
            )
        )
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error), details=[detail])
        context.abort_with_status(rpc_status.to_status(status))

    class Servicer(provider_pb2_grpc.ResourceProviderServicer):
        """The protocol; names are the protocol's."""

        def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return plugin_pb2.PluginInfo(version=version)

        def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return provider_pb2.GetSchemaResponse(schema=f'{{"name": "{name}", "version": "{version}"}}')

        def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return provider_pb2.CheckResponse(inputs=request.news)

        def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

        def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                provider.configure(plain(request.args))
            except RefusedError as error:
                refuse(context, error)
            # secrets come wrapped, outputs never do: the emulation needs values
            return provider_pb2.ConfigureResponse(acceptSecrets=False, acceptResources=False, acceptOutputs=False)

        def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                wrong = provider.check(_kind(request.urn), plain(request.news))
            except RefusedError as error:
                refuse(context, error)
                raise
            failures = [provider_pb2.CheckFailure(property=one, reason=why) for one, why in wrong]
            return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

        def Diff(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            same = plain(request.old_inputs or request.olds) == plain(request.news)
            changes = provider_pb2.DiffResponse.DIFF_NONE if same else provider_pb2.DiffResponse.DIFF_SOME
            return provider_pb2.DiffResponse(changes=changes)

        def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
            inputs = plain(request.properties)
            try:
                identifier, state = provider.create(_kind(request.urn), request.urn.rpartition("::")[2], inputs)
            except RefusedError as error:
                if error.made:
                    initialisation_failed(context, error, inputs)
                refuse(context, error)
                raise
            return provider_pb2.CreateResponse(id=identifier, properties=_struct(state))

        def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                state = provider.read(_kind(request.urn), request.id, plain(request.properties))
            except RefusedError as error:
                refuse(context, error)
                raise
            if state is None:
                return provider_pb2.ReadResponse()
            return provider_pb2.ReadResponse(id=request.id, properties=_struct(state), inputs=request.inputs)

        def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                state = provider.update(_kind(request.urn), request.id, plain(request.olds), plain(request.news))
            except RefusedError as error:
                refuse(context, error)
                raise
            return provider_pb2.UpdateResponse(properties=_struct(state))

        def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                provider.delete(_kind(request.urn), request.id, plain(request.properties))
            except RefusedError as error:
                refuse(context, error)
            return empty_pb2.Empty()

        def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
            try:
                answer = provider.invoke(request.tok, plain(request.args))
            except RefusedError as error:
                refuse(context, error)
                raise
            return getattr(provider_pb2, "InvokeResponse")(**{"return": _struct(answer)})  # noqa: B009

        def Cancel(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return empty_pb2.Empty()

        def Attach(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return empty_pb2.Empty()

    return Servicer()
