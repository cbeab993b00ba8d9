"""The zoo's members: metrics with pairs and the shortest lengths known, loaded in seconds, with stored starts."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bench.gpu.models import Given
from bench.problems.learned_metrics import digits, digits_model
from bench.problems.problem_set import ROOT, Model, ProblemSet
from bench.zoo.models import FOLDER, load_model, path_of
from bench.zoo.pairs import Pairs, load, merged, pairs_path
from bench.zoo.published import published_members
from bench.zoo.recipes import RECIPES
from bench.zoo.starts import CACHE, DEFAULT, GraphSettings, stored_starts
from geodesics import Metric

HALVES = ("practice", "held-out", "both")


@dataclass(frozen=True)
class Member:
    """A metric with some of its pairs.

    Attributes:
        name: for tables.
        group: ``zoo``, or ``practice`` or ``reference`` for sets that were not made here.
        model: metric, generator and encoded data.
        pairs: the problems chosen.
        drawn: all problems of the metric, of which these are some.
        indices: which they are ``(B,)``.
    """

    name: str
    group: str
    model: Model
    pairs: Pairs
    drawn: Pairs
    indices: Tensor

    @property
    def metric(self) -> Metric:
        """The Riemannian metric, in float64."""
        return self.model.metric

    @property
    def latents(self) -> Tensor:
        """Encoded data ``(n, d)``."""
        return self.model.latents

    @property
    def z0(self) -> Tensor:
        """Starts ``(B, d)``."""
        return self.pairs.z0

    @property
    def z1(self) -> Tensor:
        """Ends ``(B, d)``."""
        return self.pairs.z1

    @property
    def best(self) -> Tensor:
        """Shortest lengths known ``(B,)``; infinite where none is."""
        return self.pairs.best

    @property
    def held_out(self) -> Tensor:
        """Which pairs are kept aside ``(B,)``."""
        return self.pairs.held_out

    def half(self, name: str) -> "Member":
        """The practice half, the held-out half, or both."""
        if name == "both":
            return self
        return self.rows((self.held_out == (name == "held-out")).nonzero()[:, 0])

    def rows(self, which: Tensor) -> "Member":
        """Some of the pairs, by an index tensor."""
        return replace(self, pairs=self.pairs.rows(which), indices=self.indices[which])

    def problems(self) -> ProblemSet:
        """The same as the other benchmarks take it."""
        return self.model.problem_set(self.name, self.z0, self.z1, self.best)

    def starts(self, settings: GraphSettings = DEFAULT) -> Given:
        """What `GraphPaths` proposes for these pairs, from the cache as far as it is there."""
        points = stored_starts(self.name, self.metric, self.latents, self.drawn.z0, self.drawn.z1, settings)
        return Given(points[:, self.indices])


def members(
    only: Sequence[str] = (), half: str = "both", shared: Path | None = None, folder: Path = FOLDER
) -> list[Member]:
    """The zoo.

    Args:
        only: names of members; all of them where it is empty.
        half: ``practice``, ``held-out`` or ``both``.
        shared: folder with ``models``, ``data`` and ``reference`` of published models, measured besides.
        folder: of the zoo's models and pairs.

    Raises:
        ValueError: a name or a half that does not exist.
    """
    if half not in HALVES:
        raise ValueError(f"half must be one of {HALVES}; got {half!r}")
    names = known(shared, folder)
    if not set(only) <= set(names):
        raise ValueError(f"only must name members among {names}; got {list(only)}")
    found = [one.half(half) for one in _each(shared, folder, tuple(only) or tuple(names))]
    return [one for one in found if len(one.pairs)]


def known(shared: Path | None = None, folder: Path = FOLDER) -> list[str]:
    """Names of the members that can be loaded."""
    names = [recipe.name for recipe in RECIPES if path_of(recipe.name, folder).exists()]
    return [*names, "digits", *(published_members(shared) if shared is not None else ())]


def lengths_path(name: str, group: str) -> Path:
    """Where a member's shortest lengths are stored: beside the models, or in the cache for what was not made here."""
    return pairs_path(name, FOLDER if group == "zoo" else CACHE)


def sources(member: Member) -> str:
    """Digest of all that a member's row depends on: the library, this package, the lengths known."""
    digest = hashlib.sha256(str(member.best.tolist()).encode())
    folders = (ROOT / "geodesics", ROOT / "vae", ROOT / "bench" / "zoo")
    for path in sorted(path for folder in folders for path in folder.glob("**/*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _each(shared: Path | None, folder: Path, names: Sequence[str]) -> Iterator[Member]:
    for recipe in RECIPES:
        if recipe.name in names and path_of(recipe.name, folder).exists():
            pairs = load(pairs_path(recipe.name, folder))
            yield _whole(recipe.name, "zoo", load_model(path_of(recipe.name, folder)), pairs)
    if "digits" in names:
        problems = digits()
        yield _whole("digits", "reference", digits_model(), _given("digits", problems.z0, problems.z1, problems.best))
    for name, published in (published_members(shared) if shared is not None else {}).items():
        if name in names:
            model, ends = published.load()
            yield _whole(name, published.group, model, _given(name, *ends))


def _whole(name: str, group: str, model: Model, pairs: Pairs) -> Member:
    return Member(name, group, model, pairs, pairs, torch.arange(len(pairs)))


def _given(name: str, z0: Tensor, z1: Tensor, best: Tensor) -> Pairs:
    """Pairs with the lengths that came with them, or shorter ones that a search has found here."""
    zero = torch.zeros_like(best)
    pairs = Pairs(z0, z1, best, zero, ("reference",) * len(z0), zero.bool())
    path = pairs_path(name, CACHE)
    if not path.exists():
        return pairs
    found = load(path)
    return merged(pairs, found.best, found.error, "search") if torch.equal(found.z0, z0) else pairs
