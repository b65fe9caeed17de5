"""The quickstart's own story on the shipped base and images: fewer tasks, fewer steps, fewer questions."""

import json

import pytest

from cli.output import Output
from cli.quickstart.numbers import Numbers
from cli.quickstart.plan import QuickstartPlan
from cli.quickstart.story import tell

PROMISED_STORAGE = {
    "base_bytes",
    "unified_bytes",
    "trigger_bytes_per_task",
    "prototype_bytes",
    "marginal_bytes_per_task",
    "full_checkpoint_bytes",
    "total_bytes",
}
FLOAT_NOISE = 1e-4  # logits are up to 100 and pass some twenty layers in float32


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return QuickstartPlan(
        data=folder / "data",
        json_file=folder / "numbers.json",
        num_trained=1,
        images_per_task=12,
        unnamed_per_task=4,
        iterations=3,
    )


@pytest.fixture(scope="module")
def numbers(plan) -> Numbers:
    return tell(plan, Output(as_json=False))


@pytest.mark.timeout(600)
def test_every_promised_number_is_written(numbers, plan):
    written = json.loads(plan.json_file.read_text())
    every = ["animal_shapes", "icons"]

    assert list(written["zero_shot"]) == every
    assert [list(step) for step in written["accuracy"]] == [every[:1], every]
    assert list(written["individual"]) == every
    assert written["storage"].keys() >= PROMISED_STORAGE
    assert written["seconds"] > 0
    assert all(0 <= share <= 100 for step in written["accuracy"] for share in step.values())


def test_plain_open_clip_gives_the_logits_that_the_service_gave(numbers):
    assert numbers.export["num_logits"] > 100
    assert numbers.export["max_abs_logit_difference"] < FLOAT_NOISE


def test_a_task_more_takes_a_bit_a_parameter(numbers):
    """From the second task on; 64 KiB are for the manifest and the catalog's rows."""
    storage = numbers.storage
    bound = storage["full_checkpoint_bytes"] / 32 + 64 * 1024

    assert list(storage["trigger_bytes"]) == ["animal_shapes", "icons"]
    assert all(size <= bound for size in storage["trigger_bytes"].values())
    assert storage["total_bytes"] < storage["base_bytes"] + 2 * storage["full_checkpoint_bytes"]
