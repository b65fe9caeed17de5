"""Four fine-tunes of a tiny CLIP, and the one comparison of them that the tests share."""

import pytest

from bench.parity.run import run_parity
from store.safefile import write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, tiny_expert_tensors, tiny_tensors

TASKS = ("birds", "cars", "dogs", "eyes")


def write_fine_tunes(folder, config=TINY_BATCHNORM_CONFIG, tasks=TASKS):
    """The base's file and the folder of the fine-tunes, which are named out of their order of making."""
    base = tiny_tensors(0, config)
    fine_tunes = folder / "fine-tunes"
    fine_tunes.mkdir(parents=True)
    write_safetensors(folder / "base.safetensors", base)
    for seed, name in reversed([*enumerate(tasks, start=1)]):
        write_safetensors(fine_tunes / f"{name}.safetensors", tiny_expert_tensors(base, seed))
    return folder / "base.safetensors", fine_tunes


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """(base, folder of fine-tunes)."""
    return write_fine_tunes(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="session")
def document(files):
    """The comparison, run once."""
    steps = []
    found = run_parity(*files, num_passes=6, on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1]  # the estimate of the rest ends at nothing
    return found
