"""Operations of torch that people use in decoders: their derivatives are right, and the docs say how they are had."""

from collections import defaultdict
from pathlib import Path

import operations
import pytest
import torch
from torch.overrides import TorchFunctionMode

from geodesics import contracted_hessian, directional_second_derivative, value_and_jacobian
from geodesics.generators.routes import first_way, second_way
from geodesics.generators.torch_repairs import ByFormula

DECODERS = operations.decoders()
NAMED = {name: decoder for group in DECODERS.values() for name, decoder in group.items()}
REFUSED = operations.refused()
PAGE = Path(__file__).resolve().parents[2] / "docs/reference/generators.md"
# Differences of order six with this step, and the error that rounding leaves in the second.
STEP, CLOSE = 1e-3, 1e-6
FIRST = torch.tensor([-1, 9, -45, 0, 45, -9, 1], dtype=torch.float64) / (60 * STEP)
SECOND = torch.tensor([2, -27, 270, -490, 270, -27, 2], dtype=torch.float64) / (180 * STEP**2)


class Recorder(TorchFunctionMode):
    """Whether one of the functions is called that have a formula here."""

    def __init__(self):
        super().__init__()
        self.formulas, self.seen = ByFormula().formulas, False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen |= func in self.formulas
        return func(*args, **(kwargs or {}))


def points():
    return 0.7 * operations.numbers(4, 2, seed=3), operations.numbers(4, 2, seed=4)


def way_of(decoder):
    """How first and second derivatives of a decoder are had, in the words of the table."""
    z, _ = points()
    with torch.no_grad(), Recorder() as recorder:
        decoder(z.clone())
    first, second = first_way(decoder, z).words, second_way(decoder, z).words
    return f"formula, {first}" if recorder.seen else first, second


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMED)
def test_derivatives_are_those_of_differences(name):
    decoder, (z, v) = NAMED[name], points()
    with torch.no_grad():
        values = torch.stack([decoder(z + k * STEP * v) for k in range(-3, 4)])
    slope, bend = (torch.einsum("k,kbo->bo", weights, values) for weights in (FIRST, SECOND))
    _, J = value_and_jacobian(decoder, z)
    first, second = directional_second_derivative(decoder, z, v)
    w = torch.arange(1.0, 1 + first.shape[1]).to(z).cos().expand_as(first)
    form = torch.einsum("bij,bi,bj->b", contracted_hessian(decoder, z, w), v, v)
    size = float(slope.abs().amax() + bend.abs().amax())
    assert float((first - slope).abs().amax()) < 1e-9 * size
    assert float((torch.einsum("kbo,bk->bo", J, v) - first).abs().amax()) < 1e-9 * size
    assert float((second - bend).abs().amax()) < CLOSE * size
    assert float((form - (w * second).sum(1)).abs().amax()) < CLOSE * size * float(w.abs().sum(1).amax())


@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_drop_derivatives_are_refused(name):
    with pytest.raises(ValueError, match=r"generator Shaped .* drops"):
        value_and_jacobian(REFUSED[name], points()[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_table_of_the_page_is_right():
    text = PAGE.read_text("utf-8")
    version = torch.__version__.partition("+")[0]
    if f"torch {version}" not in text:
        pytest.skip("the table is that of another version of torch")
    assert set(table()) <= set(text.splitlines())


def table():
    """The rows of the page: one for all operations of a group whose derivatives are had alike."""
    rows = []
    for group, decoders in DECODERS.items():
        alike = defaultdict(list)
        for name, decoder in decoders.items():
            alike[way_of(decoder)].append(f"`{name}`")
        rows += [f"| {group} | {', '.join(names)} | {first} | {second} |" for (first, second), names in alike.items()]
    rows.append(f"| dropped | {', '.join(f'`{name}`' for name in REFUSED)} | refused | refused |")
    return rows
