"""Training an adapter moves it alone, and goes on after a kill with the same bits; so do steps in parts."""

import math

import pytest
import torch

from catalog.training_options import TrainingOptions
from store.blobs import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.errors import IncompatibleTensorsError
from store.manifest import BaseManifest
from store.safefile import SafeFile, write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG
from tests.worker.test_training import assert_same_bits, run, tensors_of
from tests.worker.training_setup import prepared, training_spec
from vlm.adapters import build_fine_tuned, make_adapter_base
from vlm.bases import BaseRef
from worker.training.spec import TrainingSpec
from worker.training.state import recipe_digest, saved_iteration


def adapter_spec(folder, *, config=TINY_CONFIG, rank=4, seed=0, **options):
    """A run of a few iterations that trains an adapter."""
    whole = training_spec(folder, config=config, **options)
    store = CheckpointStore(MemoryBlobs())
    saved = store.save_base(whole.base, whole.architecture.expected_tensors())
    ref = BaseRef("tiny", saved.digest, whole.architecture, whole.preprocessing)
    digest = make_adapter_base(store, ref, rank=rank, seed=seed).digest
    start = whole.folder / "initialisation.safetensors"
    store.blobs.copy_to(BaseManifest.from_json(store.blobs.read_checked(digest)).weights, start)
    return TrainingSpec(**{**vars(whole), "adapter": start})


@pytest.mark.parametrize("config", [TINY_CONFIG, TINY_BATCHNORM_CONFIG])
def test_the_result_holds_the_adapter_alone_and_all_of_it_has_moved(tmp_path, config):
    images = prepared(tmp_path)
    spec = adapter_spec(tmp_path, config=config, iterations=4)
    assert run(spec, images)
    start, tuned = SafeFile(spec.adapter).tensors(), tensors_of(spec)
    assert start.keys() == tuned.keys()
    assert all(start[name].shape == tuned[name].shape for name in start)
    still = [name for name in start if torch.equal(start[name], tuned[name])]
    # A tower's last layer may lie behind the feature that is read; nothing else may stand still.
    assert not [name for name in still if name.endswith("lora_B.weight")]


def test_the_loss_goes_down(tmp_path):
    images = prepared(tmp_path)
    spec = adapter_spec(tmp_path, iterations=40, learning_rate=2e-2)
    reports = []
    run(spec, images, report=lambda progress: reports.append(dict(progress)))
    assert reports[-1]["loss"] < min(reports[0]["loss"], math.log(3))


def test_a_run_stopped_twice_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    images = prepared(tmp_path)
    whole, pieces = adapter_spec(tmp_path), adapter_spec(tmp_path)
    assert run(whole, images)
    for stop_after in (3, 5):
        asked = iter(range(100))
        start = saved_iteration(pieces.state, recipe=recipe_digest(pieces))
        assert not run(
            pieces, images, is_stopping=lambda a=asked, s=start, n=stop_after: next(a) + s + 1 >= n
        )
        assert saved_iteration(pieces.state, recipe=recipe_digest(pieces)) == stop_after
    assert run(pieces, images)
    assert_same_bits(tensors_of(pieces), tensors_of(whole))


def test_the_training_state_holds_what_is_trained_and_nothing_of_the_base(tmp_path):
    images = prepared(tmp_path)
    spec = adapter_spec(tmp_path)
    run(spec, images, is_stopping=lambda: True)
    adapter = SafeFile(spec.adapter).tensors()
    names = {name.split("/", 1)[1] for name in SafeFile(spec.state).tensors()}
    assert names == adapter.keys()
    assert spec.state.stat().st_size < 4 * sum(tensor.nbytes for tensor in adapter.values())


def test_the_state_of_another_adapter_is_not_taken_up(tmp_path):
    spec, other = adapter_spec(tmp_path, seed=0), adapter_spec(tmp_path, seed=1)
    whole = training_spec(tmp_path)
    assert len({recipe_digest(each) for each in (spec, other, whole)}) == 3


def test_a_spec_survives_the_way_into_the_training_process(tmp_path):
    spec = adapter_spec(tmp_path)
    spec.write(tmp_path / "spec.json")
    assert TrainingSpec.read(tmp_path / "spec.json") == spec


def test_the_fine_tuned_file_is_the_model_that_was_trained(tmp_path):
    images = prepared(tmp_path)
    spec = adapter_spec(tmp_path, iterations=20, learning_rate=2e-2)
    run(spec, images)
    store = CheckpointStore(MemoryBlobs())
    saved = store.save_base(spec.base, spec.architecture.expected_tensors())
    ref = BaseRef("tiny", saved.digest, spec.architecture, spec.preprocessing)
    ref = BaseRef(**{**vars(ref), "adapter": make_adapter_base(store, ref, rank=4, seed=0)})
    model = build_fine_tuned(ref, store.load_base(saved.digest), spec.result)
    tokens = spec.architecture.tokenizer()([f"a photo of a {name}." for name in images.classes])
    pictures = images.pictures(spec.preprocessing, max_pixels=spec.max_pixels)
    batch = torch.stack([pictures.tensor(position) for position in images.train])
    labels = [images.images[position].label for position in images.train]
    with torch.no_grad():
        text = model.encode_text(tokens, normalize=True)
        found = (model.encode_image(batch, normalize=True) @ text.T).argmax(dim=1)
    assert (found == torch.tensor(labels)).float().mean() > 0.6


def test_an_adapter_for_other_layers_is_refused_by_name(tmp_path):
    images = prepared(tmp_path)
    spec = adapter_spec(tmp_path)
    tensors = {name: tensor[..., :-1].clone() for name, tensor in SafeFile(spec.adapter).tensors().items()}
    write_safetensors(tmp_path / "other.safetensors", tensors)
    with pytest.raises(IncompatibleTensorsError, match="lora_A"):
        run(TrainingSpec(**{**vars(spec), "adapter": tmp_path / "other.safetensors"}), images)


@pytest.mark.parametrize("make", [training_spec, adapter_spec])
@pytest.mark.parametrize("parts", [2, 4, 6])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(tmp_path, make, parts):
    images = prepared(tmp_path)
    chosen = {"iterations": 2, "batch_size": 6, "warmup_iterations": 0, "gradient_clip": 1.0}
    whole, split = make(tmp_path, **chosen), make(tmp_path, **chosen, accumulation=parts)
    reports = {}
    for name, spec in (("whole", whole), ("split", split)):
        run(spec, images, report=lambda progress, n=name: reports.setdefault(n, progress["loss"]))
    assert reports["split"] == pytest.approx(reports["whole"], rel=1e-5)
    base = SafeFile(whole.adapter or whole.base).tensors()
    one, other = tensors_of(whole), tensors_of(split)
    moved, apart = 0.0, 0.0
    for name in one:
        if one[name].is_floating_point():
            moved += float((one[name] - base[name]).double().square().sum())
            apart += float((one[name] - other[name]).double().square().sum())
    # Adam's first steps are the gradient's sign, and where that is rounding the two may differ.
    assert apart < 1e-3 * moved


def test_more_parts_than_images_are_refused():
    with pytest.raises(ValueError, match=r"accumulation \(3\) is more than batch_size \(2\)"):
        TrainingOptions(batch_size=2, accumulation=3)
