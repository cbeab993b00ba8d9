"""Correctness and speed on a GPU: ``python -m bench.gpu``; see `bench.gpu.__main__`."""
