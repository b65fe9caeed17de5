"""Mixed requests at once, experts evicted and revisions published meanwhile, and every answer checked."""

import json
import random
import re
import time
import urllib.error
import urllib.request
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.serving.calls import Call
from bench.serving.checking import (
    ALL_LABELS,
    LOGIT_TOLERANCE,
    Asked,
    LabelKind,
    Offline,
    Told,
    Verdicts,
    told_apart,
)
from bench.serving.installation import Installation, task_name
from bench.serving.participants import CLASSIFY, Service
from bench.serving.plan import ServingPlan
from bench.serving.processes import generate_load
from bench.serving.turns import percentiles_ms
from bench.steps import Steps
from vlm.experts import ExpertPool
from vlm.prediction import Predictor

MANY_IMAGES = (1, 1, 1, 1, 1, 1, 1, 2, 3, 4)
KINDS: tuple[LabelKind, ...] = ("own", "own", "own", "foreign")
SHARE_AGGREGATED, SHARE_PASSING, SHARE_PINNED = 0.2, 0.03, 0.05


@dataclass
class Heads:
    """When each revision became the head: its number, the time before its transaction and the time after."""

    numbers: list[int] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def publish(self, publish: Callable[[], int]) -> None:
        """Note the revision that this publishes."""
        self.before.append(time.monotonic())
        number = publish()
        self.after.append(time.monotonic())
        self.numbers.append(number)

    def between(self, sent: float, received: float) -> list[int]:
        """The revisions that may answer a request that was sent then and answered then."""
        first = bisect_right(self.after, sent) - 1
        last = bisect_right(self.before, received)
        return self.numbers[max(first, 0) : last]


def mixed_requests(plan: ServingPlan, *, first_head: int) -> list[Asked]:
    """What is asked: named tasks and none, label sets, batches, an older revision; the same for a seed."""
    draw = random.Random(plan.seed)  # noqa: S311 - no secret, but the same requests every time
    tasks = [task_name(index) for index in range(plan.num_experts)]
    passing = task_name(plan.num_experts)
    asked = []
    for _ in range(plan.mixed_requests):
        chance = draw.random()
        task = None if chance < SHARE_AGGREGATED else draw.choice(tasks)
        if task is not None and draw.random() < SHARE_PASSING:
            task = passing
        images = tuple(draw.randrange(plan.num_photographs) for _ in range(draw.choice(MANY_IMAGES)))
        is_pinned = task != passing and draw.random() < SHARE_PINNED
        asked.append(Asked(task, draw.choice(KINDS), images, first_head if is_pinned else None))
    return asked


def run_mixed(
    service: Service, installation: Installation, plan: ServingPlan, *, folder: Path, steps: Steps
) -> dict[str, Any]:
    """Ask, publish meanwhile, then hold every answer against the offline one."""
    first_head = installation.head
    assert first_head is not None
    heads = Heads()
    heads.publish(lambda: first_head)
    foreign = installation.revisions[first_head].manifest.tasks[0].classes
    asked = mixed_requests(plan, first_head=first_head)
    path = folder / "mixed.answers"
    publisher = _Publisher(installation, heads, plan)

    def on_done(count: int) -> int:
        steps.done(count - publisher.done)
        return publisher.on_done(count)

    found = generate_load(
        port=service.port,
        calls=[_call(each, foreign) for each in asked],
        photographs=service.photographs,
        concurrency=plan.mixed_concurrency,
        log=service.log,
        answers=path,
        allowed=publisher.allowed,
        on_done=on_done,
    )
    steps.done(plan.mixed_requests - publisher.done)
    evictions = read_metric(service.port, "condu_expert_cache_evictions_total")
    verdicts, offline = _check(installation, asked, heads, path=path, foreign=foreign, steps=steps)
    path.unlink()
    tasks = [task_name(index) for index in range(plan.num_experts)]
    return {
        "requests": verdicts.checked,
        "images": sum(len(each.images) for each in asked),
        "concurrency": plan.mixed_concurrency,
        "wrong_answers": verdicts.num_wrong,
        "wrong_by_reason": verdicts.wrong,
        "examples": verdicts.examples,
        "refused_while_the_task_was_not_there": verdicts.refused,
        "statuses": found["statuses"],
        "largest_logit_difference": verdicts.largest_logit_difference,
        "logit_tolerance": LOGIT_TOLERANCE,
        "told_apart": told_apart(offline, first_head, tasks),
        "revisions_published_meanwhile": len(heads.numbers) - 1,
        "revisions_answered_from": len(verdicts.revisions_seen),
        "evictions": evictions,
        "seconds": found["elapsed_s"],
        "requests_per_s": len(asked) / found["elapsed_s"],
        **percentiles_ms(found["latencies_s"]),
        "resident_bytes": service.resident_bytes(),
    }


def _check(
    installation: Installation,
    asked: Sequence[Asked],
    heads: Heads,
    *,
    path: Path,
    foreign: Sequence[str],
    steps: Steps,
) -> tuple[Verdicts, Offline]:
    verdicts = Verdicts()
    pool = ExpertPool(installation.store)
    offline = Offline(
        Predictor(pool),
        installation.ref,
        installation.revisions,
        pictures=installation.pictures,
        foreign_labels=foreign,
    )
    with path.open() as lines:
        for line in lines:
            answer = json.loads(line)
            told = Told(answer["status"], answer["body"], heads.between(answer["sent"], answer["received"]))
            verdicts.judge(asked[answer["call"]], told, offline)
            steps.done()
    return verdicts, offline


class _Publisher:
    """Publishes a revision after every so many answers: a further task comes, and goes again.

    Requests go on meanwhile, but not past the next revision's turn: where they are fast and publishing is
    slow, all of them would be answered from the first one.
    """

    def __init__(self, installation: Installation, heads: Heads, plan: ServingPlan) -> None:
        self._installation, self._heads, self._plan = installation, heads, plan
        self._is_there = False
        self.done = 0

    @property
    def allowed(self) -> int:
        """Requests that may be sent so far."""
        return self._plan.publish_every * (len(self._heads.numbers) + 1)

    def on_done(self, count: int) -> int:
        """Publish, when it is time; how many requests may be sent now."""
        before, self.done = self.done // self._plan.publish_every, count
        if count // self._plan.publish_every > before:
            change = self._installation.drop if self._is_there else self._installation.learn
            self._heads.publish(lambda: change(self._plan.num_experts).number)
            self._is_there = not self._is_there
        return self.allowed


def _call(asked: Asked, foreign: Sequence[str]) -> Call:
    fields: dict[str, Any] = {"top_k": ALL_LABELS}
    if asked.task is not None:
        fields["task"] = asked.task
    if asked.kind == "foreign":
        fields["labels"] = list(foreign)
    if asked.revision is not None:
        fields["revision"] = asked.revision
    return Call(CLASSIFY, asked.images, fields)


def read_metric(port: int, name: str) -> float | None:
    """The sum of a metric over its labels; None where the service does not tell."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, values)) if values else None
