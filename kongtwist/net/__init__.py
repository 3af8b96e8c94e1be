"""The network below HTTP: listeners, names, TLS, deadlines, hang-ups, and the short way to a socket."""
