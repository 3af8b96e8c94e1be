"""What plugins are given for I/O, without sockets or real time."""
