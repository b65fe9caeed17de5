"""The learning rate over a run (method.md section 5): linear warm-up, then cosine to zero."""

import math

from catalog.training_options import TrainingOptions


def learning_rate(iteration: int, options: TrainingOptions) -> float:
    """The rate of an iteration counted from 0; that of the first is above zero, as in the released code."""
    if iteration < options.warmup_iterations:
        return options.learning_rate * (iteration + 1) / options.warmup_iterations
    done = (iteration - options.warmup_iterations) / (options.iterations - options.warmup_iterations)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
