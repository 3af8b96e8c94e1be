"""Values and requests that are written down: through JSON and back they are what they were."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.address_caps import AddressCaps, AddressCounts
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.http.head import parse_request_block, parse_response_block
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.log_record import LogRecords
from kongtwist.core.packed_request import pack_request, restore_request
from kongtwist.core.packed_values import Unpackable, packed, unpacked
from kongtwist.core.proxy_protocol import ProxyHeader
from kongtwist.http1.adopted_channel import AdoptedChannel, forget_connection, pack_connection
from kongtwist.http1.channel import HTTP1Channel
from kongtwist.http1.http1_exchange import HTTP1Exchange

from ..proxy.relay_kit import Gateway, plugin_row

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.binary() | st.integers(), inner)
        | st.frozensets(PLAIN)
    ),
)
GET = b"GET /st/x?q=1 HTTP/1.1\r\nHost: h\r\nX-Odd: \xe4\r\nAuthorization: secret\r\n\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Up: \xff\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nab: c\n\r\n"


class Keeps(Plugin):
    """Leaves things with the request, as plugins do."""

    name = "keeps"
    priority = 10

    def __init__(self) -> None:
        self.left: Any = None

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        consumer = exchange.snapshot.rows["consumers"].get("c")
        exchange.authenticate(consumer, {"id": "token", "consumer": {"id": "c"}, "scope": ["a"]})
        exchange.ctx["mine"] = {b"bytes": (1, 2.5, None)}
        exchange.own(self.name)["left"] = self.left
        exchange.set_log_value("extra.part", [1, "two"])
        exchange.set_upstream_header(b"x-added", b"1", b"2")
        return None

    def log(self, exchange: Exchange, conf: Any) -> None:
        """It takes part."""


class ValueTests(SynchronousTestCase):
    """Values."""

    @given(VALUES)
    def test_round_trip(self, value: Any) -> None:
        """Every value that is said at all comes back with its types."""
        again = unpacked(json.loads(json.dumps(packed(value))))
        self.assertEqual((again, type(again)), (value, type(value)))

    def test_refused(self) -> None:
        """An object is not written down, however deep it is; and what nobody has packed is not taken up."""

        class Text(str):
            """More than text."""

        for value in (object(), [{"a": (object(),)}], Text("x"), {1, 2}, bytearray(b"x")):
            self.assertRaises(Unpackable, packed, value)
        for said in ({"x": 1}, {}, {"b": "a", "d": []}):
            self.assertRaises(ValueError, unpacked, said)


class RequestTests(SynchronousTestCase):
    """Requests."""

    def begun(self, plugin: Keeps, **context: Any) -> tuple[Gateway, HTTP1Exchange]:
        """An event stream with a consumer and a plugin, and its gateway."""
        gateway = Gateway(plugins={"keeps": plugin}, plugin_rows=[plugin_row("keeps")], **context)
        snapshot = gateway.tree.snapshot
        assert snapshot is not None
        gateway.tree.publish(snapshot.apply([change("consumers", {"id": "c", "username": "ann", "custom_id": None})]))
        gateway.answers[b"/x?q=1"] = CHUNKS
        client = gateway.client()
        client.send(GET)
        exchange = client.channel.exchange
        assert exchange is not None
        return gateway, exchange

    def test_same_record(self) -> None:
        """The record that a log plugin makes elsewhere is the one it would have made here."""
        gateway, exchange = self.begun(Keeps())
        said = json.loads(json.dumps({**pack_request(exchange), "connection": pack_connection(exchange)}))
        channel = AdoptedChannel(gateway.tree, gateway.context, said["connection"])
        block = parse_request_block(exchange.block.raw)
        other = HTTP1Exchange(channel, b"", b"", 0, block)
        snapshot = gateway.tree.snapshot
        assert snapshot is not None
        route = snapshot.routes["r"]
        channel.stand_in()
        self.assertEqual(restore_request(other, said, snapshot, route), "")
        other.response_fields = parse_response_block(exchange.response_fields.raw)  # type: ignore[union-attr]
        records = LogRecords("w")
        mine, its = records.record(exchange), records.record(other)
        self.assertEqual(its, mine)
        self.assertEqual((its["consumer"]["username"], its["authenticated_entity"]["id"]), ("ann", "token"))
        self.assertEqual((its["client_ip"], its["extra"]), ("127.0.0.1", {"part": [1, "two"]}))
        self.assertEqual((other.ctx, other.own("keeps")), (exchange.ctx, exchange.own("keeps")))
        self.assertEqual(other.request_changes, exchange.request_changes)
        self.assertTrue(other.streamed)

    def test_counted_for_its_address(self) -> None:
        """What one address may have is no reason to refuse a stream that was let in; it counts where it is, once, by the address that a
        PROXY header names."""
        counts = AddressCounts()
        caps = AddressCaps(counts, connections=1, requests=1)
        gateway, exchange = self.begun(Keeps(), caps=caps, real_ip=RealIP(["127.0.0.1"], "proxy_protocol", False))
        self.assertEqual(counts.connections, {})  # trusted: it stands for many
        header = ProxyHeader(20, "192.0.2.1", 1, "192.0.2.2", 2)
        channel = cast(HTTP1Channel, exchange.channel)
        channel.proxied = header
        self.assertTrue(channel.count(caps))
        self.assertTrue(caps.begin(exchange, "192.0.2.1"))
        facts = json.loads(json.dumps(pack_connection(exchange)))
        adopted = AdoptedChannel(gateway.tree, gateway.context, facts)
        adopted.stand_in()
        self.assertEqual((adopted.client_ip(exchange.block), adopted.proxied), ("192.0.2.1", header))
        self.assertEqual(counts.connections, {"192.0.2.1/32": 2})
        other = object()
        self.assertFalse(caps.begin(other, "192.0.2.1"))
        self.assertTrue(caps.begin(other, "192.0.2.1", always=True))
        forget_connection(exchange)
        self.assertEqual((counts.connections, counts.requests), ({"192.0.2.1/32": 1}, {"192.0.2.1/32": 1}))
        adopted.released()
        caps.end(other)
        self.assertEqual((counts.connections, counts.requests), ({}, {}))

    def test_gone(self) -> None:
        """A consumer that is configured no more is told."""
        gateway, exchange = self.begun(Keeps())
        said = pack_request(exchange)
        snapshot = gateway.tree.snapshot
        assert snapshot is not None
        gone = snapshot.apply([change("consumers", None, snapshot.rows["consumers"]["c"])])
        other = HTTP1Exchange(exchange.channel, b"", b"", 0, exchange.block)
        self.assertEqual(restore_request(other, said, gone, gone.routes["r"]), "its row in consumers is gone")
        self.assertIsNone(other.consumer)

    def test_unpackable(self) -> None:
        """An object that a plugin has left keeps the stream here."""
        plugin = Keeps()
        plugin.left = object()
        _, exchange = self.begun(plugin)
        self.assertRaises(Unpackable, pack_request, exchange)


def change(entity: str, new: Any, old: Any = None) -> Any:
    """A change of one row."""
    from kongtwist.core.storage_contract import Change

    return Change("upsert" if new else "delete", entity, new, old)
