"""What goes over the wire: HTTP/1.1 on both sides, WebSocket, byte relays, names."""
