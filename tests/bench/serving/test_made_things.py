"""Photographs, weights and requests are the same for the same seed, and fit what they are made for."""

import io

import torch
from PIL import Image

from bench.serving.installation import class_names
from bench.serving.mixed import mixed_requests
from bench.serving.photographs import make_photographs
from bench.serving.plan import ServingPlan
from bench.serving.weights import make_base, make_fine_tune, read_base
from tests.house.sources import ROOT
from tests.tiny_clip import TINY_BATCHNORM_CONFIG


def test_photographs_are_the_same_for_a_seed_and_differ_from_one_another(photographs):
    assert make_photographs(6, seed=0) == photographs
    assert len({*photographs, *make_photographs(6, seed=1)}) == 12
    assert {Image.open(io.BytesIO(content)).size for content in photographs} == {(640, 480)}


def test_made_weights_fit_their_architecture_and_a_fine_tune_leaves_statistics_alone():
    base = make_base(name="tiny", config=TINY_BATCHNORM_CONFIG)
    tuned = make_fine_tune(base.tensors, seed=1)
    again = make_fine_tune(base.tensors, seed=1)

    base.architecture.build(tuned)
    moved = {name for name in tuned if not torch.equal(tuned[name], base.tensors[name])}
    assert all(torch.equal(tuned[name], again[name]) for name in tuned)
    assert moved
    assert not [name for name in moved if "running_" in name or name == "logit_scale"]


def test_the_demo_base_is_read_in_single_precision():
    base = read_base(ROOT / "cli/demo")

    assert (base.name, base.num_parameters) == ("demo", 14_616_082)
    assert {tensor.dtype for tensor in base.tensors.values()} <= {torch.float32, torch.int64}


def test_classes_of_two_tasks_are_never_the_same():
    names = [name for index in range(12) for name in class_names(index, 20)]

    assert len(set(names)) == len(names)


def test_mixed_requests_are_of_every_kind_and_the_same_for_a_seed():
    plan = ServingPlan(mixed_requests=2000)
    asked = mixed_requests(plan, first_head=8)

    assert asked == mixed_requests(plan, first_head=8)
    assert {each.task for each in asked} == {None, *(f"task-{index}" for index in range(9))}
    assert {each.kind for each in asked} == {"own", "foreign"}
    assert {len(each.images) for each in asked} == {1, 2, 3, 4}
    assert {each.revision for each in asked} == {None, 8}
    assert not [each for each in asked if each.task == "task-8" and each.revision]
