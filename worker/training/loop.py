"""Fine-tunes a CLIP on one task, both towers or an adapter on them (method.md sections 2.1 and 5)."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW

from catalog.job_queue import JobFailedError
from store.safefile import SafeFile, write_safetensors
from vlm.adapters import attach_adapter
from vlm.prompts import fill
from worker.datasets.pixels import Pictures, in_order
from worker.training.order import ImageOrder, derived_seed
from worker.training.prompts import encode_prompts
from worker.training.schedule import learning_rate
from worker.training.spec import TrainingSpec
from worker.training.state import load_state, recipe_digest, save_state, trained_parameters
from worker.training.team import Team

BATCHES_AHEAD = 3
REPORT_EVERY_S = 0.5
SAVE_EVERY_S = 15.0
SAVING_SHARE = 0.1
"""A state is saved after `checkpoint_every` iterations or 15 s, but saving may take a tenth of the time at
most."""


@dataclass(frozen=True)
class Task:
    """What is learned: pictures with class numbers, in an order, against one prompt a class."""

    pictures: Pictures
    positions: tuple[int, ...]
    classes: tuple[str, ...]


Report = Callable[[Mapping[str, float]], None]


Regulariser = Callable[[nn.Module, Tensor, int], Tensor]
"""(model, the step's images, iteration) to a term that is added to the loss; it depends on these alone."""


def train(
    spec: TrainingSpec,
    task: Task,
    *,
    report: Report,
    is_stopping: Callable[[], bool],
    regulariser: Regulariser | None = None,
    team: Team | None = None,
) -> bool:
    """Whether the fine-tuned checkpoint is written; False when it was asked to stop before, its state saved.

    On one device with one number of threads the result depends on the spec alone, however often the run was
    killed. Another number of processes changes it by rounding only: batch, order and crops are the same.

    Args:
        spec: The run.
        task: Its images and classes.
        report: Called with {step, steps, loss, images_per_s, eta_s} about twice a second.
        is_stopping: Asked between two iterations.
        regulariser: Added to the loss, as by the protocol's baselines that distil; a job has none.
        team: The processes that train together, if there are several; each calls this.

    Raises:
        JobFailedError: The loss is no number any more.
        BlobsUnavailableError: The disk is full.
    """
    team = team or Team.alone(spec.device)
    model = _trainable_model(spec, team.device)
    optimizer = AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=spec.options.learning_rate,
        betas=spec.options.betas,
        weight_decay=spec.options.weight_decay,
        fused=True,
    )
    recipe = recipe_digest(spec)
    start = load_state(spec.state, model, optimizer, recipe=recipe)
    tokens = _prompt_tokens(spec, task).to(team.device)
    step = _Step(spec, model, optimizer, tokens=tokens, regulariser=regulariser, team=team)
    clock = _Clock(start, spec)
    for iteration, images, labels in _batches(spec, task, start, team=team):
        loss = step.run(iteration, images.to(team.device), labels.to(team.device))
        done = iteration + 1
        if clock.is_time_to_report(done, loss):
            report(clock.progress())
        if done == spec.options.iterations:
            break
        must_stop, is_due = team.any(is_stopping(), clock.is_time_to_save(done))
        if must_stop or is_due:
            began = time.monotonic()
            if team.is_first:
                save_state(spec.state, model, optimizer, iteration=done, recipe=recipe)
            clock.saved(done, time.monotonic() - began)
        if must_stop:
            return False
    if team.is_first:
        learned = model.state_dict() if spec.adapter is None else trained_parameters(model)
        write_safetensors(spec.result, {name: tensor.detach().cpu() for name, tensor in learned.items()})
    return True


def _trainable_model(spec: TrainingSpec, device: torch.device) -> nn.Module:
    """The base in float32, in tensors of our own, and the adapter on it where one is trained.

    In eval mode, so that BatchNorm statistics stay the base's.
    """
    tensors = {name: _own_float32(tensor) for name, tensor in SafeFile(spec.base).tensors().items()}
    model = spec.architecture.build(tensors)
    if spec.adapter is not None:
        attach_adapter(model, SafeFile(spec.adapter).tensors())
    # Convolutions take 0.6 of the time in this layout (EfficientNet-lite0 at 96 px, CPU); others do not mind.
    return model.to(device).to(memory_format=torch.channels_last)


def _own_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def _prompt_tokens(spec: TrainingSpec, task: Task) -> Int64[Tensor, "C L"]:
    return spec.architecture.tokenizer()([fill(spec.template, name) for name in task.classes])


def _batches(
    spec: TrainingSpec, task: Task, start: int, *, team: Team
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(iteration, own pictures, class numbers) from iteration `start` on, prepared some ahead in threads."""
    options = spec.options
    order = ImageOrder(task.positions, batch_size=options.batch_size, seed=options.seed)

    def make(chosen: tuple[int, list[int]]) -> tuple[Tensor, Tensor]:
        iteration, positions = chosen
        own = team.share(len(positions))
        pictures = [_picture(spec, task, iteration, place=place, position=positions[place]) for place in own]
        labels = [task.pictures.images[positions[place]].label for place in own]
        return torch.stack(pictures), torch.tensor(labels)

    iterations = ((iteration, order.batch(iteration)) for iteration in range(start, options.iterations))
    for (iteration, _), (images, labels) in in_order(make, iterations, ahead=BATCHES_AHEAD):
        yield iteration, images, labels


def _picture(spec: TrainingSpec, task: Task, iteration: int, *, place: int, position: int) -> Tensor:
    if not spec.options.augment:
        return task.pictures.tensor(position)
    generator = torch.Generator().manual_seed(derived_seed(spec.options.seed, "crop", iteration, place))
    picture = Image.fromarray(task.pictures.pixels(position))
    return spec.preprocessing.augment(picture, generator=generator)


class _Step:
    """One optimizer step at a time."""

    def __init__(
        self,
        spec: TrainingSpec,
        model: nn.Module,
        optimizer: AdamW,
        *,
        tokens: Tensor,
        regulariser: Regulariser | None,
        team: Team,
    ) -> None:
        self._options = spec.options
        self._model: Any = model  # nn.Module says nothing of encode_image
        self._optimizer = optimizer
        self._tokens = tokens
        self._regulariser = regulariser
        self._team = team
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._uses_amp = spec.options.amp and tokens.is_cuda and torch.cuda.is_bf16_supported()

    def run(self, iteration: int, images: Tensor, labels: Tensor) -> float:
        """The loss before the step.

        Raises:
            JobFailedError: It is NaN or infinite; the weights are as they were.
        """
        torch.manual_seed(derived_seed(self._options.seed, "step", iteration))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(iteration, self._options)
        self._optimizer.zero_grad(set_to_none=True)
        value = self._team.total(self._backward(images, labels) + self._regularised(images, iteration))
        if not math.isfinite(value):
            raise JobFailedError(
                "The training diverged",
                detail=f"The loss is {value} at step {iteration + 1} of {self._options.iterations}.",
                remedy=f"Submit the task again with a learning_rate below {self._options.learning_rate:g}, "
                "more warmup_iterations or gradient_clip 1.0.",
            )
        self._team.sum_gradients(self._trained)
        if self._options.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._trained, self._options.gradient_clip)
        self._optimizer.step()
        return value

    def _backward(self, images: Tensor, labels: Tensor) -> float:
        """What these images add to the loss of the whole batch; but for rounding, in any number of parts."""
        whole = self._options.batch_size
        with self._autocast():
            text = F.normalize(encode_prompts(self._model, self._tokens).float(), dim=-1)
        num_parts = min(self._options.accumulation, len(images))
        if num_parts == 1:
            loss = self._loss(images, labels, text) * (len(images) / whole)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()
        # The text tower runs once: each part leaves its gradient here, and their sum goes back through it.
        meeting = text.detach().requires_grad_()
        value = 0.0
        for part, wanted in zip(images.tensor_split(num_parts), labels.tensor_split(num_parts), strict=True):
            loss = self._loss(part, wanted, meeting) * (len(part) / whole)
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        text.backward(meeting.grad)  # type: ignore[no-untyped-call]
        return value

    def _regularised(self, images: Tensor, iteration: int) -> float:
        if self._regulariser is None:
            return 0.0
        term = self._regulariser(self._model, images.to(memory_format=torch.channels_last), iteration)
        term.backward()  # type: ignore[no-untyped-call]
        return term.item()

    def _loss(
        self, images: Float[Tensor, "B 3 H W"], labels: Int64[Tensor, " B"], text: Float[Tensor, "C D"]
    ) -> Tensor:
        """Cross-entropy of each image against the prompts of ALL classes, under the frozen logit scale."""
        with self._autocast():
            image_features = self._model.encode_image(images.to(memory_format=torch.channels_last))
        logits = self._model.logit_scale.exp() * (F.normalize(image_features.float(), dim=-1) @ text.T)
        return F.cross_entropy(logits, labels, label_smoothing=self._options.label_smoothing)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", dtype=torch.bfloat16) if self._uses_amp else nullcontext()


class _Clock:
    """When to report and when to save, and what to say."""

    def __init__(self, start: int, spec: TrainingSpec) -> None:
        self._spec = spec
        self._first = self._done = self._saved_at_step = start
        self._began = self._reported = self._saved_at = time.monotonic()
        self._saving_s = self._last_saving_s = 0.0
        self._losses: list[float] = []
        self._loss = math.nan

    def is_time_to_report(self, done: int, loss: float) -> bool:
        """Whether it is: at the first step, every half second, and at the end."""
        self._done = done
        self._losses.append(loss)
        moment = time.monotonic()
        is_first_or_last = done in {self._first + 1, self._spec.options.iterations}
        if moment - self._reported < REPORT_EVERY_S and not is_first_or_last:
            return False
        self._reported = moment
        return True

    def progress(self) -> dict[str, float]:
        """What to report; the loss is the mean since the last report."""
        self._loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        elapsed = max(time.monotonic() - self._began, 1e-9)
        per_s = (self._done - self._first) / elapsed
        left = self._spec.options.iterations - self._done
        return {
            "step": self._done,
            "steps": self._spec.options.iterations,
            "loss": self._loss,
            "images_per_s": per_s * self._spec.options.batch_size,
            "eta_s": left / per_s,
        }

    def is_time_to_save(self, done: int) -> bool:
        """Whether enough work would be lost, and saving it costs little beside that work."""
        age = time.monotonic() - self._saved_at
        is_due = done - self._saved_at_step >= self._spec.options.checkpoint_every or age >= SAVE_EVERY_S
        return is_due and self._last_saving_s <= SAVING_SHARE * age

    def saved(self, done: int, seconds: float) -> None:
        """Takes note of a save."""
        self._saved_at_step = done
        self._saved_at = time.monotonic()
        self._last_saving_s = seconds
