"""The Admin API of acme (Kong 3.9.3, ``kong/plugins/acme/api.lua``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ...core.answers import Answer
from ...core.chain.host import Host, HostError
from ...core.chain.phases import AdminCall, AdminEndpoint
from ...core.rows import Row
from ...entities.errors import EntityError
from .acme_certificates import Issuer
from .acme_session import Failed, shown

__all__ = ["endpoints_of"]


def endpoints_of(issuer_of: Callable[[Row, Host], Issuer]) -> tuple[AdminEndpoint, ...]:
    """The paths that the plugin adds.

    Args:
        issuer_of: gets certificates for a configuration's row.
    """
    paths = _Paths(issuer_of)
    return (
        AdminEndpoint("/acme", {"POST": paths.create, "PATCH": paths.renew}, "Get a certificate for a host; renew those that end soon."),
        AdminEndpoint("/acme/certificates", {"GET": paths.list}, "The certificates that acme renews."),
        AdminEndpoint("/acme/certificates/{host}", {"GET": paths.show}, "One of them."),
    )  # fmt: skip


def _told(status: int, body: Any) -> Answer:
    headers = [(b"Content-Type", b"application/json; charset=utf-8")]
    return Answer(status, json.dumps(body, separators=(",", ":")).encode(), headers)


def _message(status: int, text: str) -> Answer:
    return _told(status, {"message": text})


class _Paths:
    """What answers them."""

    def __init__(self, issuer_of: Callable[[Row, Host], Issuer]) -> None:
        self._issuer_of = issuer_of

    def _issuer(self, host: Host) -> Issuer | None:
        for row in host.rows.all("plugins"):
            if row["name"] == "acme" and row["enabled"]:
                return self._issuer_of(row, host)
        return None

    async def create(self, call: AdminCall) -> Answer:
        issuer = self._issuer(call.host)
        if issuer is None:
            return _message(404, "Not found")
        body = call.body if isinstance(call.body, dict) else {}
        host = body.get("host")
        if not isinstance(host, str) or not host:
            return _message(400, "host must be provided and containing a single domain")
        if ":" in host:
            return _message(400, "port is not allowed in host")
        host = host.lower()
        trial = body.get("test_http_challenge_flow") in (True, "true")
        why = await _sanity(issuer, call.host, host, trial)
        if why is not None:
            return _message(400, f"problem found running sanity check for {host}: {why}")
        if trial:
            return _message(200, f"sanity test for host {host} passed")
        try:
            await issuer.issue(host)
        except (Failed, HostError, EntityError) as error:
            return _message(500, f"failed to update certificate: {error}")
        try:
            await issuer.remember(host)
        except (HostError, EntityError) as error:
            return _message(500, f"failed to store renew config: {error}")
        return _message(201, f"certificate for host {host} is created")

    async def renew(self, call: AdminCall) -> Answer:
        issuer = self._issuer(call.host)
        if issuer is None:
            return _message(404, "Not found")
        call.host.spawn("acme: renewal", issuer.renew())
        return _message(202, "Renewal process started successfully")

    async def list(self, call: AdminCall) -> Answer:
        issuer = self._issuer(call.host)
        if issuer is None:
            return _message(404, "Not found")
        invalid = "invalid_only" in call.query and call.query["invalid_only"] != "false"
        found = []
        for name in await issuer.names():
            pair = await issuer.certificate(name)
            if pair is not None:
                told = shown(name, pair[0])
                if not (invalid and told["valid"]):
                    found.append(told)
        return _told(200, {"data": found})

    async def show(self, call: AdminCall) -> Answer:
        issuer = self._issuer(call.host)
        if issuer is None:
            return _message(404, "Not found")
        host = call.arguments["host"].lower()
        pair = await issuer.certificate(host)
        if pair is None:
            return _message(404, f"Certificate for host {host}not found in storage")
        return _told(200, {"data": shown(host, pair[0])})


async def _sanity(issuer: Issuer, host: Host, name: str, ask: bool) -> str | None:
    """Why challenges for a name would not come here; ``ask``: see whether they do."""
    if not issuer.conf.allows(name):
        return "host is not included in plugin config.domains"
    if not ask:
        return None
    url = f"http://{name}/.well-known/acme-challenge/"
    try:
        answer = await host.http.request("GET", f"{url}x", timeout=5)
    except HostError as error:
        return str(error)
    body = answer.body.decode("utf-8", "replace")
    if answer.status == 404 and "no Route matched" in body:
        return f"{url}* doesn't map to a Route in Kong; please refer to docs on how to create dummy Route and Service"
    if answer.status != 404 or "Not found" not in body:
        return f'unexpected response: "{body}", unexpected status code: {answer.status}'
    return None
