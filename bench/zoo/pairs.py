"""Pairs of end points with the shortest lengths known, as they are stored and merged."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.zoo.models import FOLDER

# Seeds of the two halves: the solver is worked on with one and judged by the other.
_PRACTICE, _HELD_OUT = 1000, 2000
# One pair in so many may have both ends in one class.
_ANY = 3


@dataclass(frozen=True)
class Pairs:
    """B problems.

    Attributes:
        z0: starts ``(B, d)``, float64.
        z1: ends ``(B, d)``.
        best: shortest lengths known, by dense chords, infinite where none is known ``(B,)``.
        error: the dense rule's own error there ``(B,)``.
        by: who found it.
        held_out: whether the pair is kept aside ``(B,)``.
        searches: searches that came to their end.
    """

    z0: Tensor
    z1: Tensor
    best: Tensor
    error: Tensor
    by: tuple[str, ...]
    held_out: Tensor
    searches: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.z0)

    def rows(self, which: Tensor) -> "Pairs":
        """Some of the problems, by an index tensor."""
        by = tuple(self.by[i] for i in which.tolist())
        fields = (x[which] for x in (self.z0, self.z1, self.best, self.error))
        return Pairs(*fields, by, self.held_out[which], self.searches)


def draw(latents: Tensor, labels: Tensor, count: int, seed: int) -> Pairs:
    """Pairs of encoded data: half for practice, half held out, by seeds of their own.

    Args:
        latents: encoded data ``(n, d)``.
        labels: ``(n,)``; where there are several, two pairs in three join different ones.
        count: number of pairs, even.
        seed: of the model.
    """
    halves = [_half(latents, labels, count // 2, base + seed) for base in (_PRACTICE, _HELD_OUT)]
    z0, z1 = (torch.cat([half[i] for half in halves]) for i in range(2))
    held_out = torch.arange(count) >= count // 2
    unknown = torch.full((count,), torch.inf, dtype=latents.dtype)
    return Pairs(z0, z1, unknown, torch.zeros_like(unknown), ("",) * count, held_out)


def _half(latents: Tensor, labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    several = bool((labels != labels[0]).any())
    first, second = [], []
    while len(first) < count:
        i, j = torch.randint(len(latents), (2,), generator=rng).tolist()
        free = not several or len(first) % _ANY == 0
        if bool((latents[i] != latents[j]).any()) and (free or labels[i] != labels[j]):
            first.append(i)
            second.append(j)
    return latents[first], latents[second]


def merged(pairs: Pairs, length: Tensor, error: Tensor, by: str) -> Pairs:
    """The pairs with lengths ``(B,)`` put in where they are shorter; NaN and infinity are never shorter."""
    better = length.isfinite() & (length < pairs.best)
    names = tuple(by if new else old for new, old in zip(better.tolist(), pairs.by, strict=True))
    best, width = torch.where(better, length, pairs.best), torch.where(better, error, pairs.error)
    return replace(pairs, best=best, error=width, by=names)


def pairs_path(name: str, folder: Path = FOLDER) -> Path:
    """The file of a model's pairs."""
    return folder / f"{name}.json"


def store(path: Path, pairs: Pairs) -> None:
    """Write pairs, all or nothing; JSON has no infinity, so an unknown length is null."""
    entries: list[dict[str, Any]] = []
    for i in range(len(pairs)):
        known = bool(pairs.best[i].isfinite())
        entry = {"length": float(pairs.best[i]) if known else None, "error": float(pairs.error[i]), "by": pairs.by[i]}
        ends = {"z0": pairs.z0[i].tolist(), "z1": pairs.z1[i].tolist()}
        entries.append({"held_out": bool(pairs.held_out[i]), **entry, **ends})
    head = '{\n "searches": ' + json.dumps(pairs.searches) + ',\n "pairs": [\n'
    text = head + ",\n".join("  " + json.dumps(entry) for entry in entries) + "\n ]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def load(path: Path) -> Pairs:
    """Read what `store` wrote."""
    content = json.loads(path.read_text("utf-8"))
    entries = content["pairs"]
    z0, z1 = (torch.tensor([entry[key] for entry in entries], dtype=torch.float64) for key in ("z0", "z1"))
    lengths = [float("inf") if entry["length"] is None else entry["length"] for entry in entries]
    best = torch.tensor(lengths, dtype=torch.float64)
    error = torch.tensor([entry["error"] for entry in entries], dtype=torch.float64)
    held_out = torch.tensor([entry["held_out"] for entry in entries])
    return Pairs(z0, z1, best, error, tuple(entry["by"] for entry in entries), held_out, tuple(content["searches"]))


def merge_files(path: Path, other: Path) -> int:
    """Take over what is shorter in another file of the same pairs; returns how many lengths were.

    Raises:
        ValueError: the two files are not of the same pairs.
    """
    pairs = load(path)
    result = combined(pairs, load(other))
    store(path, result)
    return int((result.best < pairs.best).sum())


def combined(pairs: Pairs, others: Pairs) -> Pairs:
    """Of each pair the shorter length, and the searches of both.

    Raises:
        ValueError: the two are not the same pairs.
    """
    same = pairs.z0.shape == others.z0.shape
    if not (same and torch.equal(pairs.z0, others.z0) and torch.equal(pairs.z1, others.z1)):
        raise ValueError(f"both must hold the same pairs; got {len(pairs)} and {len(others)} that differ")
    result = pairs
    for i, name in enumerate(others.by):
        row = torch.arange(len(pairs)) == i
        result = merged(result, others.best.masked_fill(~row, torch.inf), others.error, name)
    return replace(result, searches=tuple(dict.fromkeys((*pairs.searches, *others.searches))))
