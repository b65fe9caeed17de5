"""What an older version wrote, this one reads; and it writes the same bytes still."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zstandard

from store.bits import pack_bits
from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore
from store.codecs.floats import DTYPES, encode_floats
from store.verify import verify
from tests.golden.make_golden import (
    NORMS,
    TASKS,
    WHOLE_HISTORY,
    expert_digest,
    learn_models,
    prototype_set,
    single_artefacts,
    spread_values,
)
from tests.store.coded import read_mask, read_unified
from vlm.prototypes import PrototypeSet

V1 = Path(__file__).parent / "v1"
FOUND = json.loads((V1 / "found.json").read_text())
MODELS = [f"{dtype}-{norm}" for dtype in DTYPES for norm in NORMS]
ARTEFACTS = sorted(path.name for path in (V1 / "artefacts").iterdir())
ZSTD = ".".join(map(str, zstandard.ZSTD_VERSION))

# The lock pins zstandard, so that the bytes are compared wherever the project is tested; somebody else's zstd
# may find other bytes for the same content, and only that is left out then.
same_zstd = pytest.mark.skipif(
    FOUND["zstd"] != ZSTD, reason=f"the bytes were written by zstd {FOUND['zstd']}, here is {ZSTD}"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "blobs"
    shutil.copytree(V1 / "blobs", folder)
    return CheckpointStore(FileBlobs(folder))


@pytest.mark.parametrize("model", MODELS)
def test_every_expert_of_a_stored_model_is_rebuilt_as_it_was(store, model):
    manifest = store.manifest(FOUND["models"][model]["revisions"][-1])
    base = store.load_base(manifest.base)
    assert tuple(task.name for task in manifest.tasks) == TASKS
    assert f"{manifest.options.unified_dtype}-{manifest.options.rescaler_norm}" == model
    for task in TASKS:
        assert expert_digest(store, base, manifest, task) == FOUND["models"][model]["experts"][task]


def test_verify_finds_nothing_in_what_was_stored(store):
    manifests = [row["revisions"][-1] for row in FOUND["models"].values()]
    manifests += FOUND["models"][WHOLE_HISTORY]["revisions"]
    assert [step.problem for step in verify(store, manifests=manifests) if step.problem] == []


def test_stored_prototypes_and_buffers_are_read(store):
    for task in store.manifest(FOUND["models"][WHOLE_HISTORY]["revisions"][-1]).tasks:
        assert task.buffers is not None
        found = PrototypeSet.from_bytes(store.blobs.read_checked(task.prototypes))
        expected = prototype_set(task.name)
        assert (found.classes, found.templates, found.num_images) == (
            expected.classes,
            expected.templates,
            expected.num_images,
        )
        assert found.vectors.equal(expected.vectors)


@pytest.mark.parametrize("name", [name for name in ARTEFACTS if name.startswith("unified")])
def test_stored_unified_deltas_decode_to_what_was_encoded(name):
    values = spread_values()
    dtype = name.removeprefix("unified-")
    for index, chunk in enumerate(read_unified((V1 / "artefacts" / name).read_bytes())):
        part = values[index * 2**20 : (index + 1) * 2**20]
        np.testing.assert_array_equal(chunk, encode_floats(part, dtype).values)


def test_stored_masks_decode_to_what_was_encoded():
    expected = pack_bits(spread_values() > 0)
    np.testing.assert_array_equal(
        np.concatenate(read_mask((V1 / "artefacts" / "mask-of-values").read_bytes())), expected
    )
    ones, last = read_mask((V1 / "artefacts" / "mask-ones").read_bytes())
    assert (ones == 255).all()
    assert 400 < np.bitwise_count(last).sum() < 600
    assert not any(chunk.any() for chunk in read_mask((V1 / "artefacts" / "mask-zeros").read_bytes()))


def test_stored_artefacts_show_every_codec():
    stored = b"".join((V1 / "artefacts" / name).read_bytes()[-2000:] for name in ARTEFACTS)
    assert all(f'["{codec}",'.encode() in stored for codec in ("zeros", "raw", "zstd"))


@same_zstd
@pytest.mark.parametrize("name", ARTEFACTS)
def test_an_artefact_written_today_has_the_same_bytes(name):
    assert single_artefacts()[name] == (V1 / "artefacts" / name).read_bytes()


@same_zstd
def test_models_learned_today_have_the_same_bytes(tmp_path):
    assert learn_models(tmp_path) == FOUND["models"]
    written = {path.name: path.read_bytes() for path in (tmp_path / "blobs").glob("??/*")}
    assert written == {path.name: path.read_bytes() for path in (V1 / "blobs").glob("??/*")}
