"""A zoo of learned metrics that no solver was tuned for, with the shortest lengths known between pairs.

``from bench.zoo import members`` gives metrics, pairs and starts in seconds; ``python -m bench.zoo`` trains, searches
and measures.
"""

from bench.zoo.members import Member, members

__all__ = ["Member", "members"]
