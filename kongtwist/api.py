"""The stable names: what plugins, embedding programs and tests of plugins import. Everything else may move.

Names of the gateway itself are loaded when they are first asked for, so that a plugin does not load a server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import KONG_VERSION, VERSION
from .core.answers import (
    Answer,
    AnswerFeeder,
    AnswerWriter,
    BrokenOff,
    FedAnswer,
    StreamedAnswer,
    WebSocketAnswer,
    WebSocketPeer,
)
from .core.chain.authentication import (
    anonymous_consumer,
    anonymous_field,
    challenge,
    identify,
    identity_headers,
    is_known,
    realm_field,
    refuse,
    unauthorized,
    use_anonymous,
)
from .core.chain.credentials import Credentials, Known, expired, hide
from .core.chain.host import (
    ConnectFailed,
    ConnectionLost,
    GRPCCall,
    GRPCClient,
    GRPCFailed,
    GRPCReply,
    GRPCTarget,
    Host,
    HostError,
    HTTPAnswer,
    ProtoFault,
    QueueSettings,
    RedisError,
    RedisSettings,
    RedisUnavailable,
    Scope,
    Tally,
    TLSSettings,
)
from .core.chain.phases import (
    AdminCall,
    AdminEndpoint,
    BodyFilter,
    CarriedMessages,
    CarriedRequest,
    CertificateChoice,
    ClientHello,
    DirectForm,
    ProxyEndpoint,
    WholeBody,
)
from .core.chain.plugin import Plugin
from .core.chain.stream_watch import StreamInfo, StreamWatch
from .core.exchange import BodyTooLarge, Exchange
from .core.http.bodies import decode_body
from .core.log_record import LogRecords
from .core.rows import Row
from .core.stream_session import StreamSession
from .entities.checks import AtLeastOneOf, Conditional
from .entities.entity import Config, Entity
from .entities.errors import EntityError
from .entities.schema import (
    Any_,
    Array,
    Boolean,
    Field,
    Foreign,
    Integer,
    Map,
    Number,
    Record,
    Set,
    String,
    Timestamp,
    Uuid,
)
from .entities.typedefs import header_name, header_value

if TYPE_CHECKING:
    from .config.load import Conf, ConfError
    from .node.gateway import Gateway, GatewayFailed
    from .node.plugin_loader import PluginLoadError
    from .proxy.mount import GatewayFactory, GatewayResource
    from .testing import Outcome, PluginHarness

__all__ = [
    "KONG_VERSION",
    "VERSION",
    "AdminCall",
    "AdminEndpoint",
    "Answer",
    "AnswerFeeder",
    "AnswerWriter",
    "Any_",
    "Array",
    "AtLeastOneOf",
    "BodyFilter",
    "BodyTooLarge",
    "Boolean",
    "BrokenOff",
    "CarriedMessages",
    "CarriedRequest",
    "CertificateChoice",
    "ClientHello",
    "Conditional",
    "Conf",
    "ConfError",
    "Config",
    "ConnectFailed",
    "ConnectionLost",
    "Credentials",
    "DirectForm",
    "Entity",
    "EntityError",
    "Exchange",
    "FedAnswer",
    "Field",
    "Foreign",
    "GRPCCall",
    "GRPCClient",
    "GRPCFailed",
    "GRPCReply",
    "GRPCTarget",
    "Gateway",
    "GatewayFactory",
    "GatewayFailed",
    "GatewayResource",
    "HTTPAnswer",
    "Host",
    "HostError",
    "Integer",
    "Known",
    "LogRecords",
    "Map",
    "Number",
    "Outcome",
    "Plugin",
    "PluginHarness",
    "PluginLoadError",
    "ProtoFault",
    "ProxyEndpoint",
    "QueueSettings",
    "Record",
    "RedisError",
    "RedisSettings",
    "RedisUnavailable",
    "Row",
    "Scope",
    "Set",
    "StreamInfo",
    "StreamSession",
    "StreamWatch",
    "StreamedAnswer",
    "String",
    "TLSSettings",
    "Tally",
    "Timestamp",
    "Uuid",
    "WebSocketAnswer",
    "WebSocketPeer",
    "WholeBody",
    "anonymous_consumer",
    "anonymous_field",
    "challenge",
    "decode_body",
    "expired",
    "header_name",
    "header_value",
    "hide",
    "identify",
    "identity_headers",
    "is_known",
    "realm_field",
    "refuse",
    "unauthorized",
    "use_anonymous",
]

_LATER = {
    "Conf": "config.load",
    "ConfError": "config.load",
    "Gateway": "node.gateway",
    "GatewayFactory": "proxy.mount",
    "GatewayFailed": "node.gateway",
    "GatewayResource": "proxy.mount",
    "Outcome": "testing",
    "PluginHarness": "testing",
    "PluginLoadError": "node.plugin_loader",
}
"""Name -> the module it is loaded from when it is first asked for."""


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"kongtwist.api has no {name}")
    found = globals()[name] = getattr(import_module(f"{__package__}.{module}"), name)
    return found
