"""Arguments by chance: every public function ends with an answer, or with an error that names an argument."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mischief import CALLS, COSTLY, choose, verdict

import geodesics

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

# The same examples in every run; nothing is stored. Fixtures need no renewal.
CHANCE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def play(data: st.DataObject, name: str) -> None:
    call, arguments = choose(lambda choices: data.draw(st.sampled_from(list(choices))), name)
    assert verdict(call, arguments) == "", arguments


@settings(CHANCE, max_examples=150)
@given(st.data())
def test_quick_functions_answer_or_name_an_argument(data):
    play(data, data.draw(st.sampled_from(sorted(set(CALLS) - set(COSTLY)))))


@settings(CHANCE, max_examples=25)
@given(st.data())
def test_functions_that_solve_answer_or_name_an_argument(data):
    play(data, data.draw(st.sampled_from(COSTLY)))


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_fit_give_an_answer(name):
    call = CALLS[name]
    assert call.function(**call.arguments) is not None


def test_nearly_all_public_functions_are_called():
    called = {getattr(call.function, "__name__", "") for call in CALLS.values()} | set(CALLS)
    functions = {name for name in geodesics.__all__ if name[0].islower()}
    # Pictures are slow, and a fit is; the others take no arguments.
    left = {name for name in functions if name.startswith("plot_")} | {"fit_land", "forward_mode"}
    assert functions - called == left
