"""What the engine adds to the model's own forward, in one process, on the same tensors."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.serving.installation import Installation, task_name
from bench.serving.plan import ServingPlan
from bench.steps import Steps
from bench.timing import interleaved, num_runs
from serving.engine import Engine
from vlm.class_weights import Classifier, class_weights
from vlm.experts import Expert, ExpertPool
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions
from vlm.preprocessing import Preprocessing

BATCHES = (1, 8)
STOPS_WITHIN_S = 30.0


def measure_overhead(
    installation: Installation, photographs: Sequence[bytes], plan: ServingPlan, *, steps: Steps
) -> dict[str, Any]:
    """Batch -> medians of the model alone and of the engine, and what lies between them, in milliseconds."""
    assert installation.head is not None
    manifest = installation.revisions[installation.head].manifest
    task, ref = task_name(0), installation.ref
    options = PredictionOptions(task=task)
    pool = ExpertPool(installation.store)
    engine = Engine(Predictor(pool))
    entry = manifest.task(task)

    def asked(images: Sequence[Tensor]) -> object:
        return engine.submit(ref, manifest, images, options=[options]).result()

    try:
        with pool.lease(ref, manifest, task) as expert:
            weights = class_weights(
                expert.model, expert.tokenizer, labels=entry.classes, templates=entry.templates
            )
            classifier = Classifier.of(expert.model, weights)
            return {
                str(batch): _measure(
                    expert,
                    classifier,
                    asked,
                    contents=[photographs[place % len(photographs)] for place in range(batch)],
                    preprocessing=ref.preprocessing,
                    repeats=plan.overhead_repeats,
                    steps=steps,
                )
                for batch in BATCHES
            }
    finally:
        engine.close(STOPS_WITHIN_S)


def num_overhead_steps(plan: ServingPlan) -> int:
    """How many steps `measure_overhead` takes."""
    return len(BATCHES) * num_runs(5, repeats=plan.overhead_repeats)


def _measure(
    expert: Expert,
    classifier: Classifier,
    asked: Callable[[Sequence[Tensor]], object],
    *,
    contents: Sequence[bytes],
    preprocessing: Preprocessing,
    repeats: int,
    steps: Steps,
) -> dict[str, Any]:
    images = [preprocessing.load(content) for content in contents]
    stacked = torch.stack(images)
    timings = interleaved(
        {
            "open_clip": lambda: _open_clip_logits(expert.model, classifier, stacked),
            "forward": lambda: classifier.logits(expert.image_features(stacked)),
            "engine": lambda: asked(images),
            "decode": lambda: [preprocessing.load(content) for content in contents],
            "engine_and_decode": lambda: asked([preprocessing.load(content) for content in contents]),
        },
        repeats=repeats,
        steps=steps,
    )
    medians = {f"{name}_ms": 1e3 * timing.median_s for name, timing in timings.items()}
    added_s = statistics.median(
        ours - alone
        for ours, alone in zip(timings["engine"].times_s, timings["forward"].times_s, strict=True)
    )
    forward_s = timings["forward"].median_s
    return {
        **medians,
        "overhead_ms": medians["engine_ms"] - medians["forward_ms"],
        "overhead_paired_ms": 1e3 * added_s,
        "overhead_ratio": medians["engine_ms"] / medians["forward_ms"] - 1,
        "overhead_ratio_to_open_clip": medians["engine_ms"] / medians["open_clip_ms"] - 1,
        "overhead_ratio_with_decode": (
            timings["engine_and_decode"].median_s / (forward_s + timings["decode"].median_s) - 1
        ),
    }


@torch.inference_mode()
def _open_clip_logits(model: nn.Module, classifier: Classifier, pictures: Tensor) -> Tensor:
    features: Tensor = model.encode_image(pictures, normalize=True)  # type: ignore[operator]
    return classifier.logits(features)
