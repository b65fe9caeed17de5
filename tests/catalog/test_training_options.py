import json

import pytest
from pydantic import ValidationError

from catalog.training_options import TrainingOptions


def test_the_defaults_are_the_papers():
    options = TrainingOptions()
    assert (options.iterations, options.batch_size, options.learning_rate) == (1000, 64, 1e-5)
    assert (options.weight_decay, options.betas, options.label_smoothing) == (0.0, (0.9, 0.999), 0.2)
    assert options.warmup_iterations == 100


@pytest.mark.parametrize(("iterations", "warmup"), [(1, 0), (50, 5), (999, 99), (100_000, 100)])
def test_a_short_run_warms_up_for_a_tenth_of_it(iterations, warmup):
    assert TrainingOptions(iterations=iterations).warmup_iterations == warmup


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValidationError, match=r"warmup_iterations \(11\) is more than iterations \(10\)"):
        TrainingOptions(iterations=10, warmup_iterations=11)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1},
        {"label_smoothing": 1.0},
        {"betas": (0.9,)},
        {"betas": (0.9, 1.0)},
        {"gradient_clip": 0},
        {"seed": -1},
        {"test_fraction": 0},
        {"test_fraction": 1},
        {"shots": 0},
        {"checkpoint_every": 0},
        {"learning_rte": 1e-4},
        {"iterations": "many"},
    ],
)
def test_what_cannot_be_trained_with_is_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingOptions(**wrong)


def test_options_go_through_the_job_as_json_unchanged():
    options = TrainingOptions(iterations=30, betas=(0.8, 0.95), gradient_clip=1.0, keep=True)
    assert TrainingOptions(**json.loads(options.model_dump_json())) == options


def test_every_option_says_what_it_is_for():
    assert [name for name, field in TrainingOptions.model_fields.items() if not field.description] == []
