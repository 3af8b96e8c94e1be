"""The states of a request on its way to an upstream (proxy/forwarding.py): one for the request, one for its answer.

An answer may begin, or a try fail, before the request has come whole; so neither follows from the other.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["AT_ONCE", "AWAITED", "BEGUN", "HELD", "OVER", "PASSING", "SENT", "UNASKED", "Answering", "Sending"]


class Sending(Enum):
    """How far the client's request is."""

    AT_ONCE = "nothing of a body is to come: whoever is asked gets the whole request at once"
    UNASKED = "nobody has asked the client for its body yet"
    PASSING = "the body goes up as it comes"
    HELD = "the client has to wait with the rest until there is a connection again"
    SENT = "the whole body has come"


class Answering(Enum):
    """How far the answer is."""

    AWAITED = "the client has got nothing of it: there may be another try"
    BEGUN = "the client has got its head"
    OVER = "nothing more is to be done here"


# Named here once: to look a member up costs as much as a call.
AT_ONCE, UNASKED, PASSING, HELD, SENT = Sending
AWAITED, BEGUN, OVER = Answering
