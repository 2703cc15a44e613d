"""Speed beside the tools of the field: `python -m benchmarks`.

Not part of the library. Every contender runs as a process of its own, pinned to
the same core, in alternation; the totals they count are compared before any
figure is shown.
"""
