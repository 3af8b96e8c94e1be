"""What plugins are given for I/O: Redis, HTTP, TCP, threads, timers and Kong's queue, each bounded and released with its scope."""
