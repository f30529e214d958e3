"""How much of the KV transfer hides behind the prefill's compute, strategy by strategy, side by side in one run.

A simulated device computes (timed kernels that really write the KV bytes when they complete); everything else is real:
the connector's own worker halves, Mooncake's TCP writes, a receiver in a process of its own. The data tells whether a
layer was read before it was computed: until its kernel completes, its memory holds a marker.
"""
