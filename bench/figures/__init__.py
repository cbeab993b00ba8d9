"""The figures of *How it works*, each from real solves: ``python -m bench.figures``.

One file a figure; `drawing` holds what they share.
"""
