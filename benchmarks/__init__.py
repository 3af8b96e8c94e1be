"""What the gateway costs beside nginx: ``python -m benchmarks`` from a checkout.

Wall-clock figures of a shared machine do not repeat. What does is the CPU time the proxy process uses per operation,
and best as a ratio to nginx doing the same work in the same run, in turns. That is what is measured here.
"""
