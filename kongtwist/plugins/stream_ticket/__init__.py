"""stream-ticket: tickets for one handshake, for browsers, whose EventSource and WebSocket cannot set headers. Our own plugin."""

from .ticket_phases import StreamTicket

__all__ = ["StreamTicket"]
