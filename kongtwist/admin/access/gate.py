"""The Admin API's gate: it judges every request once, before its path is looked at and its body is kept."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.web.http import Request

from ..replies import Reply, Verdict, fields_of
from .browser_guard import Approach, Guard
from .tokens import RefusalReport, Tokens, given_tokens

__all__ = ["Gate"]

_log = Logger(namespace="kongtwist.admin")

REALM = 'Bearer realm="kongtwist Admin API"'


class Gate:
    """Lets requests pass or answers them.

    Args:
        guard: which pages in browsers may pass.
        tokens: what a request must bring.
        seconds: a clock, for the number of lines in the log.
        api: what it is the gate of, for these lines.

    Attributes:
        log: where lines about its API go.
    """

    def __init__(self, guard: Guard, tokens: Tokens, seconds: Callable[[], float], api: str = "Admin API") -> None:
        self.log = Logger(namespace="kongtwist.status") if api == "Status API" else _log
        self.api = api
        self.guard, self.tokens, self._seconds = guard, tokens, seconds
        self._pages, self._strangers = RefusalReport(), RefusalReport()

    def verdict(self, request: Request, method: str) -> Verdict:
        """Whether a request may pass. A preflight request of CORS cannot bring a token and needs none: it gets no data."""
        approach = Approach.of(method, lambda name: next(iter(fields_of(request, name)), None), request.isSecure())
        origin = self.guard.allowed_origin(approach)
        sentence = self.guard.refusal(approach)
        if sentence is not None:
            self._complain(self._pages, request, f"refused, {sentence}")
            return Verdict(origin, Reply(403, {"message": sentence}))
        if not approach.preflight and not self.tokens.admit(self._given(request)):
            self._complain(self._strangers, request, "refused without a right token (admin_api_token)")
            return Verdict(origin, Reply(401, {"message": "Unauthorized"}, {"WWW-Authenticate": REALM}))
        return Verdict(origin, None)

    @staticmethod
    def _given(request: Request) -> list[str]:
        return given_tokens(fields_of(request, "kong-admin-token"), fields_of(request, "authorization"))

    def _complain(self, report: RefusalReport, request: Request, why: str) -> None:
        peer = request.getClientAddress()
        who = report.note(str(getattr(peer, "host", None) or "unix:"), self._seconds())
        if who is not None:
            self.log.warn("{api}: {who} {why}", api=self.api, who=who, why=why)
