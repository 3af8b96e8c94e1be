"""A call as the plugin sees it: the base of all dialects, and gRPC-Web's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ...core.chain.phases import BodyFilter, DirectForm, WholeBody
from ...core.exchange import Answer, Exchange
from ...core.grpc.grpc_messages import MessageCounter, MessageError, MessageReader, MessageTooLarge, framed
from ...core.grpc.grpc_status import INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from ...core.grpc.grpc_text import is_grpc
from ...core.grpc.message_compression import READABLE, UnknownCompression, check_compression, decompress
from ...core.grpc.web_frames import Base64Pieces, encode_text, trailers_frame
from ...core.http.head import HeaderBlock
from .call_ends import CallEnd, end_of_refusal, end_of_trailers, trailers_of_head

__all__ = ["DIRECT", "Call", "Codec", "WebCall"]

Pair = tuple[bytes, bytes]

_REFUSAL_SIZE = 65536
"""Bytes of an answer that is no gRPC and is looked through for a message."""


class Codec(Protocol):
    """A method, and its messages in JSON (`json_codec.MethodCodec`). What it raises is a ValueError whose text is for the client."""

    client_streaming: bool
    safe: bool

    def request(self, message: bytes) -> bytes:
        """JSON to protobuf."""

    def answer(self, message: bytes) -> bytes:
        """protobuf to JSON."""


class Call:
    """One call of a client that cannot speak gRPC.

    Args:
        exchange: the request.
        kind: its content type, without parameters.
        json: its messages are JSON.

    Attributes:
        codec: translates its messages; None: they go as they are.
        compression: coding of the request's messages, where they are translated.
        end: how the plugin itself has ended it; None: it has not.
    """

    methods: tuple[bytes, ...] = (b"POST",)  #: of HTTP
    accepts = b"grpc-accept-encoding"  #: the field that names the codings that one side reads

    upstream_type = b"application/grpc+proto"  #: content type towards the upstream

    def __init__(self, exchange: Exchange, kind: bytes, *, json: bool = False) -> None:
        self.exchange = exchange
        self.kind = kind
        self.json = json
        self.codec: Codec | None = None
        self.compression = b"identity"
        self.end: CallEnd | None = None
        self._status = 0

    @property
    def needs_method(self) -> bool:
        """It cannot be made without knowing its method."""
        return self.json

    def describe(self, method: Codec | None) -> Answer | None:
        """This is its method; None: the service has no such. An `Answer` refuses the call."""
        if method is None:
            return self.refuse(UNIMPLEMENTED, "unknown method") if self.json else None
        if self.json:
            self.codec = method
        return None

    # -- what a dialect does -----------------------------------------------------------------------------------------

    def access(self) -> Answer | None:
        """Make it a gRPC request."""
        exchange = self.exchange
        exchange.set_upstream_header(b"content-type", self.upstream_type)
        exchange.set_upstream_header(b"te", b"trailers")
        return None

    def request_filter(self) -> BodyFilter | None:
        """What the request's body passes through."""
        raise NotImplementedError

    def answered(self) -> Answer | BodyFilter | WholeBody | None:
        """gRPC's answer has begun: change its head; what is done with the body."""
        raise NotImplementedError

    def ended(self, end: CallEnd) -> bytes:
        """The body of an answer that has no messages; changes the head for it."""
        raise NotImplementedError

    # -- what all do -------------------------------------------------------------------------------------------------

    def refused(self) -> Answer | WholeBody:
        """An answer that is no gRPC: the gateway's, a plugin's, or of an upstream that does not speak it."""
        exchange = self.exchange
        status, ours, fields = exchange.status, exchange.answer_source != "service", exchange.answer_fields()

        def told(body: bytes | None) -> bytes:
            return self.ended(self.end or end_of_refusal(status, ours, fields, body))

        if not ours:
            body = told(None)
            return Answer(exchange.status, body)
        exchange.status = 200  # so that there is a body, whatever it was
        return WholeBody(_REFUSAL_SIZE, told, lambda: Answer(exchange.status, told(None)))

    def refuse(self, code: int, message: str, status: int = 0) -> Answer:
        """End the call here, before there is an answer: `refused` gets to see this one.

        Args:
            code: gRPC's.
            message: for people.
            status: HTTP's, where it is not to be the code's (unary calls of Connect).
        """
        self.end = CallEnd.of(code, message)
        self._status = status
        return Answer(status or 400, message.encode())

    def refuse_message(self, error: ValueError) -> Answer:
        """`refuse` a request with a message that cannot be read, or is too large."""
        code = RESOURCE_EXHAUSTED if isinstance(error, MessageTooLarge) else INVALID_ARGUMENT
        return self.refuse(code, str(error))

    def refuse_compression(self, error: UnknownCompression) -> Answer:
        """`refuse` a request whose messages are compressed in a way that is not read here, and say which are."""
        answer = self.refuse(UNIMPLEMENTED, str(error))
        answer.headers.append((self.accepts.title(), b", ".join(READABLE)))
        return answer

    def unreadable_answer(self) -> Answer | None:
        """End a call whose answer is to be translated, and is compressed in a way that is not read here; None: go on."""
        block, encoding = self.exchange.response_fields, self.answer_compression
        if self.codec is None or block is None or encoding is None:
            return None
        try:
            if b"grpc-status" not in block:  # else there is no message
                check_compression(encoding)
        except UnknownCompression as error:
            body = self.ended(CallEnd.of(INTERNAL, f"the upstream's {error}"))
            return Answer(self.exchange.status, body)
        self.exchange.clear_response_header(b"grpc-encoding")
        return None

    @property
    def answer_compression(self) -> bytes | None:
        """The coding that the upstream names for its messages."""
        block = self.exchange.response_fields
        return None if block is None else block.first(b"grpc-encoding")

    def end_of_answer(self) -> CallEnd:
        """How the upstream ended the call, whose last byte is here. Its trailers go no further: the body has them."""
        exchange = self.exchange
        block = exchange.response_fields
        if block is not None and b"grpc-status" in block:
            return end_of_trailers(trailers_of_head(block))
        trailers, exchange.answer_trailers = exchange.answer_trailers, None
        return end_of_trailers(trailers or ())

    def clear_trailers(self) -> None:
        """Take trailers out of a head that has them: a client must not find them twice."""
        block = self.exchange.response_fields
        if block is not None and b"grpc-status" in block:
            for name, _ in trailers_of_head(block):
                self.exchange.clear_response_header(name)

    def expose(self, names: Iterable[bytes] = ()) -> None:
        """Let scripts of other origins see the answer's own fields (Fetch, CORS protocol)."""
        block = self.exchange.response_fields
        ours = () if block is None else (name.lower() for name, _ in trailers_of_head(block))
        listed = dict.fromkeys((b"grpc-status", b"grpc-message", b"grpc-status-details-bin", *ours, *names))
        self.exchange.set_response_header(b"Access-Control-Expose-Headers", b",".join(listed))

    def translated(self, translate: Callable[[bytes], bytes], encoding: bytes) -> Callable[[bytes], bytes]:
        """What translates each message of a body that comes in pieces; what it makes is not compressed. Raises ValueError.

        Args:
            translate: gets a message, decompressed.
            encoding: how those that say so are compressed.
        """
        limit = self.exchange.gateway.grpc_message_size
        reader = MessageReader(limit)

        def pieces(data: bytes) -> bytes:
            out = []
            for flags, message in reader.feed(data):
                out.append(framed(translate(decompress(encoding, message, limit) if flags else message)))
            return b"".join(out)

        return pieces

    def passed_on(self, last_frame: Callable[[CallEnd], bytes]) -> Callable[[bytes, bool], bytes]:
        """What passes gRPC's messages on, translated where they are to be, and puts a frame behind them.

        Args:
            last_frame: makes it of the end of the call.
        """
        counter = MessageCounter()
        encoding = self.answer_compression or b"identity"
        translate = None if self.codec is None else self.translated(self.codec.answer, encoding)

        def pass_on(chunk: bytes, last: bool) -> bytes:
            counter.feed(chunk)
            if translate is not None:
                chunk = translate(chunk)
            if last:
                if not counter.between:
                    raise MessageError("the upstream's answer ends within a message")
                chunk += last_frame(self.end_of_answer())
            return chunk

        return pass_on

    def no_messages(self) -> None:
        """Make the head that of an answer with nothing but the end of the call."""
        exchange = self.exchange
        exchange.set_response_header(b"Content-Type", self.kind)
        for name in (b"grpc-status", b"grpc-message", b"Content-Encoding"):
            exchange.clear_response_header(name)


class WebCall(Call):
    """gRPC-Web (PROTOCOL-WEB.md): messages as gRPC has them, trailers in a frame behind them.

    Args:
        exchange, kind, json: as of `Call`.
        text: both bodies are base64.
    """

    def __init__(self, exchange: Exchange, kind: bytes, *, json: bool = False, text: bool = False) -> None:
        super().__init__(exchange, kind, json=json)
        self.text = text

    def access(self) -> Answer | None:
        super().access()
        if self.codec is None:
            return None
        exchange = self.exchange
        self.compression = exchange.get_header(b"grpc-encoding") or b"identity"
        for name in (b"grpc-encoding", self.accepts):  # of messages that do not go up as they are, nor come down so
            if exchange.get_header(name) is not None:
                exchange.clear_upstream_header(name)
        try:
            check_compression(self.compression)
        except UnknownCompression as error:
            return self.refuse_compression(error)
        return None

    def request_filter(self) -> BodyFilter:
        text = Base64Pieces() if self.text else None
        translate = None if self.codec is None else self.translated(self.codec.request, self.compression)
        counter = MessageCounter()

        def pass_up(chunk: bytes, last: bool) -> bytes | Answer:
            try:
                if text is not None:
                    chunk = text.feed(chunk)
                    if last:
                        text.end()
                counter.feed(chunk)
                if last and not counter.between:
                    raise MessageError("the request ends within a message")
                return chunk if translate is None else translate(chunk)
            except ValueError as error:
                return self.refuse_message(error)

        return BodyFilter(pass_up, keeps_length=text is None and translate is None)

    def answered(self) -> Answer | BodyFilter:
        refused = self.unreadable_answer()
        if refused is not None:
            return refused
        self.exchange.set_response_header(b"Content-Type", self.kind)
        self.expose()
        self.clear_trailers()
        pass_on = self.passed_on(_frame)
        if not self.text:
            return BodyFilter(pass_on)

        def pass_text(chunk: bytes, last: bool) -> bytes:
            chunk = pass_on(chunk, last)
            return encode_text(chunk) if chunk else chunk

        return BodyFilter(pass_text)

    def ended(self, end: CallEnd) -> bytes:
        self.exchange.status = 200
        self.no_messages()
        self.expose()
        frame = _frame(end)
        return encode_text(frame) if self.text else frame


def _plain(block: HeaderBlock) -> bool:
    """Whether an answer is gRPC whose end comes behind it."""
    return is_grpc(block.first(b"content-type")) and b"grpc-status" not in block


DIRECT = DirectForm(_plain, lambda trailers: _frame(end_of_trailers(trailers)))
"""What is the same for all calls in binary."""


def _frame(end: CallEnd) -> bytes:
    fields = end.fields
    if not any(name == b"grpc-message" for name, _ in fields):
        fields = [*fields, (b"grpc-message", b"")]  # as Kong's plugin writes it
    return trailers_frame([*fields, *end.metadata])
