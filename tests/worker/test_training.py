"""The training loop does what method.md section 5 says, and a killed run ends with the same bits."""

import json
import math

import pytest
import torch
from torch.optim import AdamW

from catalog.job_queue import JobFailedError
from catalog.training_options import TrainingOptions
from store.safefile import SafeFile, write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, TINY_CONFIG
from tests.worker.training_setup import prepared, task_of, training_spec
from worker.training import loop, prompts
from worker.training.loop import train
from worker.training.order import ImageOrder
from worker.training.schedule import learning_rate
from worker.training.spec import TrainingSpec
from worker.training.state import recipe_digest, saved_iteration


def never() -> bool:
    return False


def run(spec: TrainingSpec, images, *, report=lambda _progress: None, is_stopping=never) -> bool:
    return train(spec, task_of(images, spec), report=report, is_stopping=is_stopping)


def tensors_of(spec: TrainingSpec) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in SafeFile(spec.result).tensors().items()}


def assert_same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize(("augment", "config"), [(True, TINY_BATCHNORM_CONFIG), (False, TINY_CONFIG)])
def test_a_run_stopped_twice_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, augment, config):
    images = prepared(tmp_path)
    whole = training_spec(tmp_path, config=config, augment=augment, checkpoint_every=100)
    assert run(whole, images)
    pieces = training_spec(tmp_path, config=config, augment=augment, checkpoint_every=100)
    for stop_after in (3, 5):
        asked = iter(range(100))
        start = saved_iteration(pieces.state, recipe=recipe_digest(pieces))
        assert not run(
            pieces, images, is_stopping=lambda a=asked, s=start, n=stop_after: next(a) + s + 1 >= n
        )
        assert saved_iteration(pieces.state, recipe=recipe_digest(pieces)) == stop_after
    assert run(pieces, images)
    assert_same_bits(tensors_of(pieces), tensors_of(whole))


def test_the_state_of_another_recipe_is_not_taken_up(tmp_path):
    images = prepared(tmp_path)
    spec = training_spec(tmp_path)
    run(spec, images, is_stopping=lambda: True)
    assert saved_iteration(spec.state, recipe=recipe_digest(spec)) == 1
    other = training_spec(tmp_path, learning_rate=2e-3)
    assert saved_iteration(spec.state, recipe=recipe_digest(other)) == 0
    spec.state.write_bytes(spec.state.read_bytes()[:-10])
    assert saved_iteration(spec.state, recipe=recipe_digest(spec)) == 0


def test_the_loss_goes_down_and_only_weights_move(tmp_path):
    images = prepared(tmp_path)
    spec = training_spec(tmp_path, iterations=30, learning_rate=1e-3)
    reports = []
    run(spec, images, report=lambda progress: reports.append(dict(progress)))
    assert reports[-1]["step"] == reports[-1]["steps"] == 30
    assert reports[-1]["eta_s"] == 0
    assert reports[-1]["images_per_s"] > 0
    assert reports[-1]["loss"] < math.log(3)
    base, tuned = SafeFile(spec.base).tensors(), tensors_of(spec)
    assert base.keys() == tuned.keys()
    assert torch.equal(base["logit_scale"], tuned["logit_scale"])
    moved = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert any(name.startswith("visual.") for name in moved)
    assert any(name.startswith("transformer.") for name in moved)


def test_batchnorm_statistics_stay_and_its_affine_parameters_train(tmp_path):
    images = prepared(tmp_path)
    spec = training_spec(tmp_path, config=TINY_BATCHNORM_CONFIG, iterations=3)
    run(spec, images)
    base, tuned = SafeFile(spec.base).tensors(), tensors_of(spec)
    statistics = [name for name in base if "running_" in name or "num_batches" in name]
    assert statistics
    assert all(torch.equal(base[name], tuned[name]) for name in statistics)
    affine = [name.replace("running_mean", "weight") for name in statistics if name.endswith("running_mean")]
    assert any(not torch.equal(base[name], tuned[name]) for name in affine)


def test_one_step_is_the_step_that_the_method_describes(tmp_path):
    images = prepared(tmp_path)
    spec = training_spec(tmp_path, iterations=1, warmup_iterations=0, augment=False, batch_size=5)
    run(spec, images)
    model = spec.architecture.build(
        {name: tensor.clone() for name, tensor in SafeFile(spec.base).tensors().items()}
    )
    positions = ImageOrder(images.train, batch_size=5, seed=0).batch(0)
    batch = torch.stack([spec.preprocessing.load(images.images[p].path) for p in positions])
    labels = torch.tensor([images.images[p].label for p in positions])
    tokens = spec.architecture.tokenizer()([f"a photo of a {name}." for name in ("blue", "green", "red")])
    logits = model.logit_scale.exp() * (
        model.encode_image(batch, normalize=True) @ model.encode_text(tokens, normalize=True).T
    )
    loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0).step()
    got = tensors_of(spec)
    for name, parameter in trained.items():
        # The first step of Adam is the gradient's sign; where the gradient is rounding, so is its sign.
        counts = parameter.grad.abs() > 1e-5
        assert counts.any()
        torch.testing.assert_close(got[name][counts], parameter.detach()[counts], rtol=1e-4, atol=2e-6)


def test_cutting_prompts_off_after_their_end_changes_neither_features_nor_gradients(tmp_path):
    prepared(tmp_path)
    spec = training_spec(tmp_path)
    tokens = spec.architecture.tokenizer()(["a photo of a cat.", "a photo of a very long sea otter name."])
    assert int(tokens.argmax(dim=1).max()) + 1 < tokens.shape[1]
    found = []
    for encode in (
        lambda model: prompts.encode_prompts(model, tokens),
        lambda model: model.encode_text(tokens),
    ):
        tensors = {name: tensor.clone() for name, tensor in SafeFile(spec.base).tensors().items()}
        model = spec.architecture.build(tensors)
        features = encode(model)
        features.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({"features": features.detach(), **gradients})
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-4, atol=1e-4, msg=name)


def test_many_prompts_in_checkpointed_parts_give_the_same_losses(tmp_path, monkeypatch):
    images = prepared(tmp_path)
    losses = []
    for prompts_at_once in (256, 2):
        monkeypatch.setattr(prompts, "PROMPTS_AT_ONCE", prompts_at_once)
        monkeypatch.setattr(loop, "REPORT_EVERY_S", 0.0)
        spec = training_spec(tmp_path, iterations=4, learning_rate=1e-4)
        run(spec, images, report=lambda progress: losses.append(progress["loss"]))
    assert losses[4:] == pytest.approx(losses[:4], rel=1e-3)


def test_a_diverging_run_fails_and_names_the_step_and_the_remedy(tmp_path):
    images = prepared(tmp_path)
    base = {name: tensor.clone() for name, tensor in SafeFile(training_spec(tmp_path).base).tensors().items()}
    base["visual.conv1.weight"].view(-1)[0] = math.inf
    write_safetensors(tmp_path / "base.safetensors", base)
    spec = training_spec(tmp_path)
    with pytest.raises(JobFailedError, match=r"nan at step 1 of 8.*learning_rate below 0.001"):
        run(spec, images)
    assert not spec.result.exists()


def test_a_clipped_gradient_is_what_the_optimizer_sees(tmp_path, monkeypatch):
    images = prepared(tmp_path)
    seen = []
    monkeypatch.setattr(
        loop.AdamW,
        "step",
        lambda self: seen.append(
            torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm().item()
        ),
    )
    for clip in (None, 0.01):
        run(training_spec(tmp_path, iterations=1, warmup_iterations=0, gradient_clip=clip), images)
    assert seen[0] > 0.01
    assert seen[1] == pytest.approx(0.01, rel=1e-3)


def test_a_text_tower_of_another_kind_is_not_cut_off(tmp_path):
    tokens = torch.tensor([[1, 5, 9, 0, 0, 0]])

    class Other(torch.nn.Module):
        attn_mask = None

        def encode_text(self, given):
            return given.float()

    assert torch.equal(prompts.encode_prompts(Other(), tokens), tokens.float())


def test_a_state_is_saved_every_so_many_iterations(tmp_path, monkeypatch):
    images = prepared(tmp_path)
    saved = []
    monkeypatch.setattr(loop, "save_state", lambda *_args, iteration, **_rest: saved.append(iteration))
    run(training_spec(tmp_path, iterations=7, checkpoint_every=2), images)
    assert saved == [2, 4, 6]


def test_the_learning_rate_warms_up_and_falls_to_zero_along_a_cosine():
    options = TrainingOptions(iterations=10, warmup_iterations=4, learning_rate=1.0)
    rates = [learning_rate(iteration, options) for iteration in range(10)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(10, options) == pytest.approx(0.0)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    order = ImageOrder(range(100, 110), batch_size=4, seed=3)
    places = [position for iteration in range(5) for position in order.batch(iteration)]
    first, second = places[:10], places[10:]
    assert sorted(first) == sorted(second) == list(range(100, 110))
    assert first != second
    assert ImageOrder(range(100, 110), batch_size=4, seed=3).batch(4) == order.batch(4)
    assert ImageOrder(range(100, 110), batch_size=4, seed=4).batch(4) != order.batch(4)


def test_a_spec_survives_its_file(tmp_path):
    prepared(tmp_path)
    spec = training_spec(tmp_path, betas=(0.8, 0.95), gradient_clip=1.5)
    spec.write(tmp_path / "spec.json")
    assert TrainingSpec.read(tmp_path / "spec.json") == spec
    assert json.loads((tmp_path / "spec.json").read_text())["options"]["gradient_clip"] == 1.5
