"""All experiments, in the order in which they are done."""

from bench.paper.experiment import Experiment
from bench.paper.experiments import (
    clustering,
    density,
    deviation_fields,
    extreme_settings,
    faithfulness,
    interpolation,
    latent_space,
    solver_comparison,
)
from bench.paper.experiments import random_walks as walks
from bench.paper.open_questions import activations as open_questions_activations
from bench.paper.open_questions import dimensions as open_questions_dimensions
from bench.paper.open_questions import neural_field as open_questions_field

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
