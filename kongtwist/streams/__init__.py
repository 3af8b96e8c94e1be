"""Streams once they are open: WebSocket, Server-Sent Events, and two sockets spliced together."""
