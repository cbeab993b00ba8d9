"""Benchmarks: solvers compared on problems with known answers (`bench.solvers`), and the core's small pieces.

Run from a checkout; not part of the installed packages.
"""

import os

# Read once, when torch loads OpenMP: waiting threads sleep and leave the processor to those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
