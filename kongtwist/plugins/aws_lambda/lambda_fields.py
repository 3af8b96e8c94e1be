"""What aws-lambda is configured with (Kong 3.9, ``kong/plugins/aws-lambda/schema.lua``)."""

from __future__ import annotations

from urllib.parse import urlsplit

from ...core.rows import Row
from ...entities.checks import AllOrNone, Custom
from ...entities.schema import Boolean, Field, Integer, Number, String
from ...entities.typedefs import header_value, host, url

__all__ = ["CONFIG", "CONFIG_CHECKS"]


def _no_role(value: str) -> str:
    return "roles are not available: this version does not ask STS; leave aws_assume_role_arn out, and give the keys of a user"


def _no_proxy(value: str) -> str | None:
    if url(value) is not None or urlsplit(value).scheme != "http":
        return url(value)
    return "proxies are not available: functions are asked directly; leave proxy_url out"


def _http_proxy(row: Row) -> str | None:
    proxy = row["config"]["proxy_url"]
    return None if not isinstance(proxy, str) or urlsplit(proxy).scheme == "http" else "proxy_url scheme must be http"


def _secret(text: str, *checks: object) -> String:
    return String(encrypted=True, referenceable=True, checks=checks, text=text)


CONFIG: dict[str, Field] = {
    "timeout": Number(required=True, default=60000, text="Milliseconds until the function's whole answer."),
    "keepalive": Number(required=True, default=60000, text="Milliseconds an idle connection is kept."),
    "aws_key": _secret("Access key id; null: AWS_ACCESS_KEY_ID of the environment.", header_value),
    "aws_secret": _secret("Secret access key; null: AWS_SECRET_ACCESS_KEY of the environment."),
    "aws_assume_role_arn": _secret("Role to take on; not available.", _no_role),
    "aws_role_session_name": String(default="kong", text="Name of the session of that role."),
    "aws_sts_endpoint_url": String(checks=(url,), text="Where STS is asked for that role."),
    "aws_region": String(
        checks=(host,), text="Region of the function; null: AWS_REGION or AWS_DEFAULT_REGION of the environment."
    ),
    "function_name": String(required=False, text="Name or ARN of the function."),
    "qualifier": String(text="Version or alias of the function; null: the newest."),
    "invocation_type": String(
        required=True, default="RequestResponse", one_of=["RequestResponse", "Event", "DryRun"],
        text="Wait for the answer, only leave the event there, or only see whether that may be.",
    ),
    "log_type": String(required=True, default="Tail", one_of=["Tail", "None"], text="Whether the end of its log comes back."),
    "host": String(checks=(host,), text="Where Lambda is asked; null: lambda.REGION.amazonaws.com."),
    "port": Integer(default=443, between=[0, 65535], text="The TCP port there."),
    "disable_https": Boolean(default=False, text="Ask without TLS."),
    "unhandled_status": Integer(
        between=[100, 999], text="HTTP status where the function failed (X-Amz-Function-Error: Unhandled); null: Lambda's."
    ),
    "forward_request_method": Boolean(default=False, text="Tell the function the method."),
    "forward_request_uri": Boolean(default=False, text="Tell the function the path and the query."),
    "forward_request_headers": Boolean(default=False, text="Tell the function the headers."),
    "forward_request_body": Boolean(default=False, text="Tell the function the body."),
    "is_proxy_integration": Boolean(
        default=False, text="Read status, headers and body out of the function's answer, as Amazon API Gateway does."
    ),
    "awsgateway_compatible": Boolean(default=False, text="Tell the function all, as Amazon API Gateway does (event 1.0)."),
    "proxy_url": String(checks=(_no_proxy,), text="An HTTP proxy to AWS; not available."),
    "skip_large_bodies": Boolean(
        default=True, text="Leave bodies out that are longer than client_body_buffer_size; false: up to 6 MB are sent."
    ),
    "base64_encode_body": Boolean(default=True, text="Send bodies in base64."),
    "aws_imds_protocol_version": String(
        required=True, default="v1", one_of=["v1", "v2"], text="How a machine of EC2 would be asked for keys; it is not asked."
    ),
    "empty_arrays_mode": String(
        required=True, default="legacy", one_of=["legacy", "correct"],
        text="Whether empty arrays of the function's JSON become empty objects (legacy) or stay.",
    ),
}  # fmt: skip


CONFIG_CHECKS = (AllOrNone("config.aws_key", "config.aws_secret"), Custom(("config.proxy_url",), _http_proxy))
