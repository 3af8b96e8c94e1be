"""gRPC's status codes, and what stands for them elsewhere: HTTP statuses, error codes of HTTP/2."""

from __future__ import annotations

__all__ = [
    "ABORTED", "ALREADY_EXISTS", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL", "INVALID_ARGUMENT",
    "NAMES", "NOT_FOUND", "OK", "OUT_OF_RANGE", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "STATUS_WORDS", "UNAUTHENTICATED",
    "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN", "http_status_of", "status_of_http", "status_of_reset",
]  # fmt: skip

(
    OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED,
    FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED,
) = range(17)  # fmt: skip

NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
"""Code -> its name in gRPC's specification."""

STATUS_WORDS = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss",
    "Unauthenticated",
)  # fmt: skip
"""Code -> the message of an answer that has none of its own (Kong 3.9, PDK response)."""

_OF_HTTP = {
    200: OK, 400: INVALID_ARGUMENT, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: NOT_FOUND, 409: ALREADY_EXISTS,
    429: RESOURCE_EXHAUSTED, 499: CANCELLED, 500: INTERNAL, 501: UNIMPLEMENTED, 503: UNAVAILABLE, 504: DEADLINE_EXCEEDED,
}  # fmt: skip

_CLASSES = {2: OK, 4: INVALID_ARGUMENT, 5: INTERNAL}


def status_of_http(status: int) -> int:
    """The code that an answer of the gateway with an HTTP status carries (Kong 3.9, PDK response).

    502, an upstream that is not there, is UNAVAILABLE as for gRPC's own clients (http-grpc-status-mapping.md), so that they may
    try again; Kong has INTERNAL for it.
    """
    if status == 502:
        return UNAVAILABLE
    known = _OF_HTTP.get(status)
    return _CLASSES.get(status // 100, UNKNOWN) if known is None else known


_TO_HTTP = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 500, 500, 503, 500, 401)


def http_status_of(code: int) -> int:
    """The HTTP status of an answer that is to be told without gRPC (Kong 3.9, plugin grpc-gateway); 500 for unknown codes."""
    return _TO_HTTP[code] if 0 <= code < len(_TO_HTTP) else 500


_OF_RESET = {7: UNAVAILABLE, 8: CANCELLED, 11: RESOURCE_EXHAUSTED, 12: PERMISSION_DENIED}


def status_of_reset(error: int) -> int:
    """The code of a call whose stream was reset (PROTOCOL-HTTP2.md, Errors).

    Args:
        error: the error code of RST_STREAM (RFC 9113 7).
    """
    return _OF_RESET.get(error, INTERNAL)
