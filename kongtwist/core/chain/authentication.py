"""Who a request comes from: what all authentication plugins do (Kong 3.9, common to these plugins).

Several of them on one route combine as in Kong. Without ``anonymous`` each must be satisfied, and the last one says who it is.
With ``anonymous`` the first that is satisfied says so and the others are skipped (`is_known`); where none is, the request goes on
as the anonymous consumer (`refuse`, `unauthorized`).
"""

from __future__ import annotations

from math import inf

from ...entities.schema import Boolean, String
from ...entities.typedefs import header_value
from ..answers import Answer
from ..exchange import Exchange
from ..http.headers import encoded
from ..http.identity_fields import IDENTITY_FIELDS
from ..rows import Row

__all__ = [
    "Guard", "anonymous_consumer", "anonymous_field", "challenge", "held_until", "hide_field", "holds_until", "identify",
    "identity_headers", "is_known", "nobody", "preflight_field", "realm_field", "refuse", "unauthorized", "use_anonymous",
    "vouch", "vouched",
]  # fmt: skip


def anonymous_field() -> String:
    """The field ``anonymous`` of a plugin's configuration."""
    return String(text="Id or username of the consumer to go on as where nobody is recognised; null: answer 401.")


def hide_field(what: str) -> Boolean:
    """The field ``hide_credentials`` of a plugin's configuration.

    Args:
        what: what is hidden, for the text.
    """
    return Boolean(required=True, default=False, text=f"Take {what} out of the request before it goes to the upstream.")


def preflight_field(what: str) -> Boolean:
    """The field ``run_on_preflight`` of a plugin's configuration.

    Args:
        what: what is asked for, for the text.
    """
    return Boolean(required=True, default=True, text=f"Ask OPTIONS requests for {what} too; false: let them pass.")


def realm_field(default: str | None = None) -> String:
    """The field ``realm`` of a plugin's configuration.

    Args:
        default: its default; None: it may be null.
    """
    if default is not None:
        return String(
            required=True, default=default, checks=(header_value,), text="Realm in WWW-Authenticate of the 401."
        )
    return String(required=False, checks=(header_value,), text="Realm in WWW-Authenticate of the 401; null: none.")


def challenge(scheme: str, realm: str | None, error: str = "") -> bytes:
    """A value of WWW-Authenticate (RFC 9110 11.6.1), in Kong's form: no comma between its parameters.

    Args:
        scheme: ``Basic`` and so on.
        realm: the configured one; None: no such parameter.
        error: further parameters as they are to be sent.
    """
    parts = [scheme, "" if realm is None else f'realm="{realm}"', error]
    return " ".join([part for part in parts if part]).encode()


class Guard:
    """What a configuration of every plugin has that looks for credentials; those of plugins are its subclasses.

    Args:
        conf: with the fields `anonymous_field`, `hide_field`, `realm_field`.
        scheme: of the challenge.

    Attributes:
        anonymous: the consumer to go on as; None: none.
        hide: take the credential out of the request.
        challenge: WWW-Authenticate of the 401.
    """

    __slots__ = ("anonymous", "challenge", "hide")

    def __init__(self, conf: Row, scheme: str) -> None:
        self.anonymous: str | None = conf["anonymous"]
        self.hide: bool = conf["hide_credentials"]
        self.challenge = challenge(scheme, conf["realm"])


def is_known(exchange: Exchange, anonymous: str | None) -> bool:
    """Whether an authentication plugin with this ``anonymous`` is skipped: another one has found out who it is."""
    return anonymous is not None and exchange.credential is not None


def nobody(exchange: Exchange) -> None:
    """Let a request pass that is not asked who it comes from. What its client says of that itself is not believed, and goes."""
    if exchange.consumer is None and exchange.credential is None:
        exchange.request_changes = {**(exchange.request_changes or {}), **_NOBODY}


_VOUCHED = "kongtwist.vouched"


def vouch(exchange: Exchange) -> None:
    """All plugins of this Route that authenticate have been satisfied before, and who it is is known (`Exchange.authenticate`): the
    plugins behind the caller whose `Plugin.authenticates` is set are skipped. Only for a plugin whose ``access`` waits."""
    exchange.ctx[_VOUCHED] = True


def vouched(exchange: Exchange) -> bool:
    """Whether a plugin has vouched for the client."""
    return _VOUCHED in exchange.ctx


_UNTIL = "kongtwist.held_until"


def holds_until(exchange: Exchange, until: float) -> None:
    """Note when what the client has shown holds no more: for tokens that say so themselves. What ends first counts.

    Args:
        exchange: the request.
        until: epoch seconds.
    """
    shared = exchange.ctx
    before = shared.get(_UNTIL)
    if before is None or until < before:
        shared[_UNTIL] = until


def held_until(exchange: Exchange) -> float:
    """Epoch seconds at which what the client has shown holds no more, as far as plugins have noted it (`holds_until`), or its
    credential says so; infinite where nothing does."""
    until: float = exchange.ctx.get(_UNTIL, inf)
    row = exchange.credential
    ends: float | None = None if row is None else row.get("expires_at")
    return until if ends is None else min(until, ends)


def refuse(exchange: Exchange, anonymous: str | None, answer: Answer) -> Answer | None:
    """No usable credential: go on as the consumer ``anonymous`` where one is configured, else give this answer."""
    return answer if anonymous is None else use_anonymous(exchange, anonymous)


def unauthorized(
    exchange: Exchange, anonymous: str | None, challenge: bytes, message: str = "Unauthorized"
) -> Answer | None:
    """No usable credential, as Kong says it: 401 with WWW-Authenticate, or the anonymous consumer where one is configured.

    Args:
        exchange: the request.
        anonymous: as configured.
        challenge: see `challenge`.
        message: for the client.
    """
    if anonymous is not None:
        return use_anonymous(exchange, anonymous)
    return exchange.error(401, message, [(b"WWW-Authenticate", challenge)])


def identify(exchange: Exchange, consumer: Row | None, credential: Row | None, identifier: str | None) -> None:
    """Note in the request who it comes from, and tell the upstream. `Known.pass_on` does it for credentials that are rows.

    Args:
        exchange: the request.
        consumer: None where there is none, as with a directory's users.
        credential: its row, or what stands for one; None for the anonymous consumer.
        identifier: what X-Credential-Identifier says.
    """
    exchange.authenticate(consumer, credential)
    changes = identity_headers(consumer, identifier, anonymous=credential is None)
    exchange.request_changes = changes if exchange.request_changes is None else {**exchange.request_changes, **changes}


def identity_headers(
    consumer: Row | None, credential_name: str | None, *, anonymous: bool | None = None
) -> dict[bytes, bytes | None]:
    """Changes to the upstream's request headers that tell who the client is. A client's own claims are taken out, also those with
    ``_`` for ``-`` (core/http/identity_fields.py); Kong lets these pass, and a client's X-Authenticated-Groups.

    Args:
        consumer: the consumer found; None: whoever it is, it is no consumer.
        credential_name: what goes into X-Credential-Identifier.
        anonymous: whether it is the anonymous consumer; None: where there is no ``credential_name``.
    """
    consumer = consumer or {}
    consumer_id = consumer.get("id")
    return {
        b"x-consumer-id": None if consumer_id is None else str(consumer_id).encode(),
        b"x-consumer-custom-id": _text(consumer.get("custom_id")),
        b"x-consumer-username": _text(consumer.get("username")),
        b"x-credential-identifier": _text(credential_name),
        b"x-anonymous-consumer": b"true" if (credential_name is None if anonymous is None else anonymous) else None,
        b"x-authenticated-groups": None,
        b"x-consumer-groups": None,
    }


_NOBODY: dict[bytes, bytes | None] = dict.fromkeys(IDENTITY_FIELDS)


def _text(value: str | None) -> bytes | None:
    """As it is sent: a name may hold anything, a header no control characters."""
    return None if value is None else encoded(value.encode("utf-8", "surrogatepass"))


def anonymous_consumer(exchange: Exchange, name: str) -> Row | None:
    """The consumer with this id or username."""
    consumers = exchange.snapshot.rows.get("consumers", {})
    return consumers.get(name) or exchange.snapshot.by("consumers", "username", name)


def use_anonymous(exchange: Exchange, name: str) -> Answer | None:
    """Go on as the consumer configured in ``anonymous``: its id or username. An `Answer` when there is none such."""
    consumer = anonymous_consumer(exchange, name)
    if consumer is None:
        return exchange.error(500, f"anonymous consumer {name} is configured but doesn't exist")
    identify(exchange, consumer, None, None)
    return None
