"""How the tests ask an engine, and how they tell whether an answer is the one."""

import time
from contextlib import contextmanager

import pytest

from vlm.prediction_options import PredictionOptions

WAIT_S = 60


def submit(engine, learned, images, *options, manifest="head", **more):
    manifest = learned.manifest if manifest == "head" else manifest
    return engine.submit(learned.base, manifest, images, options=options or [PredictionOptions()], **more)


def ask(engine, learned, images, *options, **more):
    return submit(engine, learned, images, *options, **more).result(WAIT_S)


def assert_same_answers(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert [share.digest for share in ours.experts] == [share.digest for share in theirs.experts]
        chances = {each.label: each.probability for each in theirs.predictions}
        assert {each.label: each.probability for each in ours.predictions} == pytest.approx(chances, abs=1e-4)


def wait_until(claim):
    end = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@contextmanager
def hooked(engine, learned, task, hook):
    """The task's expert, in the engine's memory, with a hook before its image tower."""
    ask(engine, learned, [learned.picture(0)], PredictionOptions(task=task))
    with engine.predictor.pool.lease(learned.base, learned.manifest, task) as expert:
        handle = expert.model.visual.register_forward_pre_hook(hook)
        try:
            yield expert
        finally:
            handle.remove()
