"""``/services/{}/grpc``: the services and methods that a gRPC service tells of itself (server reflection). Our own addition."""

from __future__ import annotations

from ...core.chain.host import GRPCFailed, GRPCTarget, Host, HostError, TLSSettings
from ...core.grpc.described_services import described_services
from ...core.grpc.grpc_status import DEADLINE_EXCEEDED, UNIMPLEMENTED
from ...core.peer import host_field
from ...core.rows import Row
from ...entities.addresses import parse_address
from ...entities.references import is_reference
from ..entity_rows import EntityRows
from ..get_only import Get
from ..json_resource import Call
from ..replies import Reply, not_found

__all__ = ["ServiceMethods"]

_TIMEOUT = 10.0
"""Seconds that a service may take to tell."""
_PROTOCOLS = ("grpc", "grpcs")


class ServiceMethods(Get):
    """See the module.

    Args:
        services: the services.
        key: one of them, as given in the path.
    """

    def __init__(self, services: EntityRows, key: str) -> None:
        super().__init__(services.api)
        self._services, self.key = services, key

    async def get(self, call: Call) -> Reply:
        row = self._services.look_up(self.key)
        if row is None:
            return not_found()
        if row["protocol"] not in _PROTOCOLS:
            text = f"a service of protocol {row['protocol']} has no gRPC methods; those of grpc and grpcs have"
            return Reply(400, {"message": text})
        host = self.api.host
        if host is None:
            return Reply(503, {"message": "this process calls no services"})
        target = self._target(row)
        if isinstance(target, Reply):
            return target
        return await _asked(host, call, target)

    def _target(self, service: Row) -> GRPCTarget | Reply:
        """The server to be asked; where there is none, the answer."""
        host, port = _bare(service["host"]), int(service["port"])
        secure = service["protocol"] == "grpcs"
        authority = host_field(f"[{host}]" if ":" in host else host, port, secure)
        upstream = self.api.storage.find("upstreams", "name", service["host"])
        if upstream is not None:
            balancer = self.api.facts.balancer(upstream["id"])
            peer = None if balancer is None else balancer.pick(None)
            if peer is None:
                return Reply(503, {"message": "failure to get a peer from the ring-balancer"})
            host, port, authority = peer.address, peer.port, peer.host_field(secure)
        tls = None
        if secure:
            certificate = self._certificate(service, upstream)
            if isinstance(certificate, Reply):
                return certificate
            name = authority.decode()
            tls = TLSSettings(
                verify=bool(service.get("tls_verify")),
                server_name=_bare(name if name.endswith("]") else name.rpartition(":")[0] or name),
                authorities=self._authorities(service),
                certificate=certificate[0],
                key=certificate[1],
                verify_depth=service.get("tls_verify_depth"),
                protocols=("h2",),
            )
        return GRPCTarget(host, port, authority.decode(), tls, min(service["connect_timeout"] / 1000, _TIMEOUT))

    def _certificate(self, service: Row, upstream: Row | None) -> tuple[str, str] | Reply:
        """What the service is shown: certificate and key, or none of them."""
        own = service.get("client_certificate") or (upstream or {}).get("client_certificate")
        row = None if own is None else self.api.storage.get("certificates", own["id"])
        if row is None:
            return "", ""
        if is_reference(row["cert"]) or is_reference(row["key"]):
            return Reply(400, {"message": "the service's client_certificate is a reference to a vault: not read here"})
        return row["cert"], row["key"]

    def _authorities(self, service: Row) -> tuple[str, ...]:
        if not service.get("tls_verify"):
            return ()
        rows = [self.api.storage.get("ca_certificates", each) for each in service.get("ca_certificates") or ()]
        return tuple(row["cert"] for row in rows if row is not None)


async def _asked(host: Host, call: Call, target: GRPCTarget) -> Reply:
    """What the server tells."""
    where = f"{target.host}:{target.port}"
    try:
        descriptors = await host.grpc(target).describe(timeout=_TIMEOUT)
        services = await call.long_work.aside(described_services, descriptors)
    except GRPCFailed as error:
        if error.busy:
            return Reply(503, {"message": str(error)})
        if error.code == UNIMPLEMENTED:
            return Reply(502, {"message": f"{where} does not offer server reflection"})
        status = 504 if error.code == DEADLINE_EXCEEDED else 502
        return Reply(status, {"message": f"{where} cannot be asked: {error}"})
    except (HostError, ValueError) as error:
        return Reply(502, {"message": f"{where} cannot be asked: {error}"})
    return Reply(200, {"data": services, "next": None})


def _bare(host: str) -> str:
    """A host without brackets, an IPv4 address without leading zeros."""
    if host[:1].isdigit() and ":" not in host:
        try:
            return parse_address(host).host
        except ValueError:
            return host
    return host.strip("[]")
