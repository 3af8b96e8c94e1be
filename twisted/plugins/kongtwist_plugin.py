"""Makes the command ``twistd kongtwist``."""

from twisted.application.service import ServiceMaker

kongtwist = ServiceMaker(
    "kongtwist",
    "kongtwist.tap",
    "A streaming API gateway: HTTP, WebSocket and Server-Sent Events, configured as Kong is.",
    "kongtwist",
)
