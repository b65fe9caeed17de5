"""A tiny installation, and one small run of everything; the tests share both."""

import pytest

from bench.serving.installation import Installation
from bench.serving.photographs import make_photographs
from bench.serving.plan import ServingPlan
from bench.serving.run import Peers, run_serving
from bench.serving.weights import make_base
from tests.tiny_clip import TINY_CONFIG


@pytest.fixture(scope="session")
def photographs():
    """Six JPEGs."""
    return make_photographs(6, seed=0)


@pytest.fixture(scope="session")
def installation(tmp_path_factory, photographs):
    """A model that has learned two tasks."""
    folder = tmp_path_factory.mktemp("installation")
    made = Installation(
        folder, make_base(name="tiny", config=TINY_CONFIG), photographs, num_classes=4, seed=0
    )
    for index in range(2):
        made.learn(index)
    yield made
    made.close()


@pytest.fixture(scope="session")
def document():
    """The whole benchmark, small, on a tiny CLIP; real processes, plain open_clip as the peer."""
    told = []
    found = run_serving(
        make_base(name="tiny", config=TINY_CONFIG),
        ServingPlan.quick(),
        peers=Peers(("open-clip", "litserve", "ray")),
        is_quick=True,
        on_progress=lambda done, planned: told.append((done, planned)),
    )
    assert told[-1][0] == told[-1][1]  # the estimate of the rest ends at nothing
    return found
