"""Calls of Connect's protocol (connectrpc.com/docs/protocol)."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode

from ...core.chain.phases import BodyFilter, WholeBody
from ...core.exchange import Answer, Exchange
from ...core.grpc.connect_protocol import (
    BadCall,
    connect_status,
    end_of_stream,
    error_object,
    json_metadata,
    message_of_query,
    timeout_of,
    trailer_fields,
)
from ...core.grpc.grpc_messages import MessageCounter, MessageError, MessageReader, framed
from ...core.grpc.grpc_status import INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from ...core.grpc.grpc_text import format_timeout
from ...core.grpc.message_compression import UnknownCompression, check_compression, decompress
from .call_ends import CallEnd
from .web_call import Call, Codec

__all__ = ["ConnectStream", "ConnectUnary"]

_COMPRESSIONS = frozenset((b"gzip", b"deflate", b"br", b"zstd", b"snappy", b"identity"))
_NOT_PASSED = (
    b"connect-protocol-version", b"connect-timeout-ms", b"connect-content-encoding", b"connect-accept-encoding",
    b"content-encoding", b"accept-encoding",
)  # fmt: skip


class ConnectCall(Call):
    """What unary and streaming calls have in common.

    Args:
        exchange, kind, json: as of `Call`.
    """

    encoding = b""  #: the request's field that names the compression of its messages
    answers = b""  #: the answer's field that names the compression of its messages

    def describe(self, method: Codec | None) -> Answer | None:
        if method is None:
            return self.refuse(UNIMPLEMENTED, "unknown method", 404)
        return super().describe(method)

    def access(self) -> Answer | None:
        """See `Call.access`."""
        try:
            self._fields()
        except UnknownCompression as error:
            return self.refuse_compression(error)
        except ValueError as error:
            return self.refuse_message(error)
        return None

    def _fields(self) -> None:
        """Say in gRPC's fields what Connect's say.

        Raises:
            BadCall: they say what cannot be.
            UnknownCompression: see `compressed`.
            ValueError: the message there is cannot be read.
        """
        super().access()
        exchange = self.exchange
        version = exchange.get_header(b"connect-protocol-version")
        if version not in (None, b"1"):
            raise BadCall('connect-protocol-version must be "1"')
        timeout = exchange.get_header(b"connect-timeout-ms")
        encoding = exchange.get_header(self.encoding)
        accepted = [
            name
            for value in exchange.get_headers(self.accepts)
            for name in (part.partition(b";")[0].strip().lower() for part in value.split(b","))
            if name in _COMPRESSIONS
        ]
        for name in _NOT_PASSED:
            if exchange.get_header(name) is not None:
                exchange.clear_upstream_header(name)
        if timeout is not None:
            exchange.set_upstream_header(b"grpc-timeout", format_timeout(timeout_of(timeout)))
        if encoding and encoding != b"identity":
            self.compressed(encoding)
        if accepted and self.codec is None:
            exchange.set_upstream_header(b"grpc-accept-encoding", b",".join(dict.fromkeys(accepted)))

    def compressed(self, encoding: bytes) -> None:
        """The request's messages are compressed. Raises UnknownCompression: they have to be read, and cannot be."""
        if self.codec is None:
            self.exchange.set_upstream_header(b"grpc-encoding", encoding)
        else:
            check_compression(encoding)
            self.compression = encoding

    def answer_head(self) -> None:
        """Take out of the head what is gRPC's alone."""
        exchange, block = self.exchange, self.exchange.response_fields
        self.clear_trailers()
        if block is None:
            return
        for name, theirs in ((b"grpc-encoding", self.answers), (b"grpc-accept-encoding", self.accepts)):
            value = block.first(name)
            if value is not None:
                exchange.clear_response_header(name)
                if name == b"grpc-accept-encoding" and theirs:
                    exchange.set_response_header(theirs.title(), value)

    def error_of(self, end: CallEnd) -> dict[str, object] | None:
        """A call's error as JSON has it; None where there was none."""
        return None if end.code == OK else error_object(end.code, end.message, _decoded(end.details))


class ConnectStream(ConnectCall):
    """A call with streams: messages as gRPC has them, an object of JSON in a frame behind the answer's."""

    encoding = b"connect-content-encoding"
    accepts = b"connect-accept-encoding"
    answers = b"connect-content-encoding"

    _single = False  #: the method takes one message

    def describe(self, method: Codec | None) -> Answer | None:
        refused = super().describe(method)
        self._single = method is not None and not method.client_streaming
        if refused is None and self._single and not self.exchange.block.has_body:
            return self.refuse(UNIMPLEMENTED, "unary request has zero messages")
        return refused

    def request_filter(self) -> BodyFilter:
        translate = None if self.codec is None else self.translated(self.codec.request, self.compression)
        counter = MessageCounter()

        def pass_up(chunk: bytes, last: bool) -> bytes | Answer:
            counter.feed(chunk)
            if self._single and (counter.count > 1 or (last and not counter.count)):
                return self.refuse(UNIMPLEMENTED, f"unary request has {counter.count or 'zero'} messages")
            try:
                if last and not counter.between:
                    raise MessageError("the request ends within a message")
                return chunk if translate is None else translate(chunk)
            except ValueError as error:
                return self.refuse_message(error)

        return BodyFilter(pass_up, keeps_length=translate is None)

    def answered(self) -> Answer | BodyFilter:
        refused = self.unreadable_answer()
        if refused is not None:
            return refused
        exchange, encoding = self.exchange, self.answer_compression
        exchange.set_response_header(b"Content-Type", self.kind)
        self.expose()
        self.answer_head()
        if encoding is not None and self.codec is None:
            exchange.set_response_header(b"Connect-Content-Encoding", encoding)
        return BodyFilter(self.passed_on(self._end))

    def ended(self, end: CallEnd) -> bytes:
        self.exchange.status = 200
        self.no_messages()
        self.expose()
        return self._end(end)

    def _end(self, end: CallEnd) -> bytes:
        return end_of_stream(self.error_of(end), json_metadata(end.metadata))


class ConnectUnary(ConnectCall):
    """A unary call: each body is a message without a prefix.

    Args:
        exchange, kind, json: as of `Call`.
        query: decoded arguments of a call that came as GET; None: it did not.
    """

    encoding = b"content-encoding"
    accepts = b"accept-encoding"
    answers = b"content-encoding"

    methods = (b"POST", b"GET")

    def __init__(
        self, exchange: Exchange, kind: bytes, *, json: bool = False, query: dict[str, list[str]] | None = None
    ) -> None:
        super().__init__(exchange, kind, json=json)
        self._query = query
        self._flags = 0

    @property
    def needs_method(self) -> bool:
        return self.json or self._query is not None

    def describe(self, method: Codec | None) -> Answer | None:
        refused = super().describe(method)
        if refused is None and self._query is not None and not (method is not None and method.safe):
            # A link, or an image's address, must not change anything.
            return self.refuse(UNIMPLEMENTED, "the method may not be called by GET", 405)
        return refused

    def compressed(self, encoding: bytes) -> None:
        super().compressed(encoding)
        self._flags = 1

    def _fields(self) -> None:
        super()._fields()
        exchange = self.exchange
        if self._query is not None:
            _, compression, message = message_of_query(self._query)
            if compression != "identity":
                self.compressed(compression.encode())
            exchange.set_upstream_method(b"POST")
            exchange.set_upstream_query(b"")
            exchange.set_upstream_body(self._message(message))
        elif exchange.upstream_body is not None or not exchange.block.has_body:  # a plugin has set it, or there is none
            exchange.set_upstream_body(self._message(exchange.upstream_body or b""))

    def _message(self, body: bytes) -> bytes:
        """The message in a request's body, with its prefix. Raises ValueError."""
        if self.codec is None:
            return framed(body, self._flags)
        if self._flags and body:  # a body without a byte is an empty message, whatever its coding
            body = decompress(self.compression, body, self.exchange.gateway.grpc_message_size)
        return framed(self.codec.request(body))

    def request_filter(self) -> BodyFilter:
        limit = self.exchange.gateway.grpc_message_size
        held: list[bytes] = []
        size = 0

        def pass_up(chunk: bytes, last: bool) -> bytes | Answer:
            nonlocal size
            size += len(chunk)
            if size > limit:
                return self.refuse(RESOURCE_EXHAUSTED, f"message size {size} is larger than {limit}")
            held.append(chunk)
            if not last:
                return b""
            try:
                return self._message(b"".join(held))
            except ValueError as error:
                return self.refuse_message(error)

        return BodyFilter(pass_up)

    def answered(self) -> WholeBody:
        limit = self.exchange.gateway.grpc_message_size
        self.answer_head()
        too_large = f"the answer is larger than {limit}"
        return WholeBody(limit + 5, self._whole, lambda: self._error(CallEnd.of(RESOURCE_EXHAUSTED, too_large)))

    def _whole(self, body: bytes) -> bytes | Answer:
        end = self.end_of_answer()
        if end.code != OK:
            return self.ended(end)
        try:
            messages = MessageReader(known=1)
            found = messages.feed(body)
            if len(found) != 1 or not messages.between:
                code = UNIMPLEMENTED if messages.between else INTERNAL
                return self.ended(CallEnd.of(code, f"unary response has {len(found) or 'zero'} messages"))
            (flags, message), *_ = found
            encoding = self.answer_compression
            if self.codec is not None:
                if flags:
                    message = decompress(encoding or b"identity", message, self.exchange.gateway.grpc_message_size)
                message = self.codec.answer(message)
        except ValueError as error:
            return self.ended(CallEnd.of(INTERNAL, str(error)))
        exchange = self.exchange
        exchange.set_response_header(b"Content-Type", self.kind)
        if flags and encoding and self.codec is None:
            exchange.set_response_header(b"Content-Encoding", encoding)
        self._add_trailers(end)
        return message

    def _add_trailers(self, end: CallEnd) -> None:
        fields = trailer_fields(end.metadata)
        for name, value in fields:
            self.exchange.add_response_header(name, value)
        self.expose(name for name, _ in fields)

    def _error(self, end: CallEnd) -> Answer:
        body = self.ended(end)
        return Answer(self.exchange.status, body)

    def ended(self, end: CallEnd) -> bytes:
        exchange = self.exchange
        if end.code == OK:  # an answer of a plugin that is no failure, and no message either
            end = CallEnd.of(INTERNAL, "answered without a message")
        exchange.status = self._status or connect_status(end.code)
        self.no_messages()
        exchange.set_response_header(b"Content-Type", b"application/json")
        self._add_trailers(end)
        return json.dumps(self.error_of(end), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _decoded(details: bytes | None) -> bytes | None:
    """Base64 of a field, whose padding may be missing."""
    if details is None:
        return None
    try:
        return b64decode(details + b"=" * (-len(details) % 4))
    except binascii.Error:
        return None
