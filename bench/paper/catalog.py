"""All experiments, in the order in which they are done."""

from bench.paper import (
    clustering,
    density,
    deviation_fields,
    extreme_settings,
    faithfulness,
    interpolation,
    latent_space,
    open_questions_activations,
    open_questions_dimensions,
    open_questions_field,
    solver_comparison,
    walks,
)
from bench.paper.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    latent_space.EXPERIMENT,
    deviation_fields.EXPERIMENT,
    interpolation.EXPERIMENT,
    interpolation.SECOND,
    extreme_settings.EXPERIMENT,
    walks.EXPERIMENT,
    walks.SECOND,
    solver_comparison.EXPERIMENT,
    clustering.EXPERIMENT,
    clustering.MEANS,
    density.EXPERIMENT,
    open_questions_dimensions.EXPERIMENT,
    open_questions_activations.EXPERIMENT,
    open_questions_field.EXPERIMENT,
    faithfulness.EXPERIMENT,
)
