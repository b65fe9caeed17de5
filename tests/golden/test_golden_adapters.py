"""Format 2, a model of adapters: what an older version wrote is read, and is written the same still."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import zstandard

from api.bundle_facts import read_facts
from store.blobs import FileBlobs, MemoryBlobs
from store.bundles import BundleReader, import_bundle
from store.checkpoints import CheckpointStore
from store.verify import verify
from tests.golden.make_golden import EXPECTED, TASKS, expert_digest
from tests.golden.make_golden_adapters import (
    ADAPTER,
    BUNDLE,
    adapter_facts,
    bundle,
    learn_adapters,
    start_tensors,
)

V2 = Path(__file__).parent / "v2"
FOUND = json.loads((V2 / "found.json").read_text())
same_zstd = pytest.mark.skipif(
    ".".join(map(str, zstandard.ZSTD_VERSION)) != FOUND["zstd"], reason="another zstd may code otherwise"
)


@pytest.fixture
def store(tmp_path):
    shutil.copytree(V2 / "blobs", tmp_path / "golden")
    return CheckpointStore(FileBlobs(tmp_path / "golden"))


def experts(store):
    adapter, manifest = store.load_base(FOUND["adapter"]), store.manifest(FOUND["head"])
    return {task: expert_digest(store, adapter, manifest, task) for task in TASKS}


def test_a_stored_model_of_adapters_is_read_and_sound(store):
    adapter = store.load_base(FOUND["adapter"])
    assert adapter.manifest.extends.base == FOUND["base"]
    for name, view in adapter.space.views(adapter.flat).items():
        assert torch.equal(view, start_tensors()[name])
    assert experts(store) == FOUND["experts"]
    assert [step.problem for step in verify(store, manifests=[FOUND["head"]]) if step.problem] == []


def test_a_stored_bundle_of_adapters_is_taken_in(store):
    elsewhere = CheckpointStore(MemoryBlobs())
    reader = BundleReader(V2 / BUNDLE)
    import_bundle(elsewhere.blobs, reader, expected=EXPECTED, expected_of_adapter=ADAPTER)
    assert read_facts(reader).model_dump() == adapter_facts()
    assert experts(elsewhere) == FOUND["experts"]
    assert b"".join(bundle(elsewhere, FOUND).read()) == (V2 / BUNDLE).read_bytes()


@same_zstd
def test_a_model_of_adapters_learned_today_has_the_same_bytes(tmp_path):
    assert learn_adapters(tmp_path) == {name: FOUND[name] for name in ("base", "adapter", "head", "experts")}
    written = {path.name: path.read_bytes() for path in (tmp_path / "blobs").glob("??/*")}
    assert written == {path.name: path.read_bytes() for path in (V2 / "blobs").glob("??/*")}
