import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
import torch

from serving.errors import DeadlineExceededError, OverloadedError
from serving.work import Request
from store.errors import NotFoundError
from tests.serving.asking import (
    WAIT_S,
    ask,
    assert_same_answers,
    hooked,
    submit,
    wait_until,
)
from tests.serving.conftest import Heard
from tests.vlm.conftest import TASKS
from vlm.architecture import Architecture
from vlm.class_weights import digest_choices
from vlm.errors import ImageRejectedError
from vlm.inquiry import ClassifierNeeded, Participant
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions

KINDS = [
    PredictionOptions(),
    PredictionOptions(k=1, include_base=False),
    PredictionOptions(k=2, weighting="softmax", space="probabilities"),
    PredictionOptions(k=0, labels=("cat", "sea otter")),
    PredictionOptions(task="pets"),
    PredictionOptions(task="flowers", label_set="union", top_k=8),
    PredictionOptions(task="digits", labels=("a", "b"), templates=("{}",)),
]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_an_answer_is_what_the_predictor_gives_offline(make_engine, learned, options):
    images = [learned.picture(seed) for seed in range(5)]
    expected = Predictor(learned.pool()).classify(learned.base, learned.manifest, images, options=options)
    assert_same_answers(ask(make_engine(), learned, images, options)[0], expected)


def test_several_label_sets_are_answered_from_one_pass_of_the_pictures(make_engine, learned):
    heard = Heard()
    asked = [PredictionOptions(task="pets"), PredictionOptions(task="pets", label_set="union")]
    images = [learned.picture(seed) for seed in range(3)]
    found = ask(make_engine(metrics=heard), learned, images, *asked)
    offline = Predictor(learned.pool())
    for each, options in zip(found, asked, strict=True):
        assert_same_answers(each, offline.classify(learned.base, learned.manifest, images, options=options))
    assert heard.sizes("image") == [3]


def test_a_rejected_image_gets_its_error_and_the_others_their_answers(make_engine, learned):
    rejected = ImageRejectedError("broken", "it is broken")
    first, second = ask(make_engine(), learned, [rejected, learned.picture(1)])[0]
    assert (first.error, first.predictions) == (rejected, ())
    assert second.predictions
    assert ask(make_engine(), learned, [rejected])[0][0].error is rejected


def test_many_callers_in_little_memory_get_the_answers_of_the_revision_they_named(make_engine, learned):
    engine = make_engine(models=4)
    offline = Predictor(learned.pool())
    pictures = [learned.picture(seed) for seed in range(4)]

    def call(seed):
        for turn in range(12):
            options = KINDS[(seed + turn) % len(KINDS)]
            images = [pictures[(seed + turn + more) % 4] for more in range(1 + turn % 3)]
            manifests = [each for each in learned.manifests if options.task in (None, *names_of(each))]
            manifest = manifests[(seed + turn) % len(manifests)]
            found = ask(engine, learned, images, options, manifest=manifest)[0]
            expected = offline.classify(learned.base, manifest, images, options=options)
            assert_same_answers(found, expected)
        return True

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(call, range(8)))
    stats = engine.predictor.pool.stats()
    assert stats.evictions > 20
    assert stats.leased == 0
    assert engine.status().queued_images == 0


def is_refused(engine, learned):
    try:
        ask(engine, learned, [learned.picture(0)])
    except OverloadedError as error:
        return "stopping" in str(error)
    return False


def names_of(manifest):
    return [task.name for task in manifest.tasks]


def test_switching_experts_builds_no_more_models_than_fit(make_engine, learned, monkeypatch):
    built = []
    build = Architecture.build

    def counted(self, tensors):
        built.append(1)
        return build(self, tensors)

    monkeypatch.setattr(Architecture, "build", counted)
    engine = make_engine(models=4)

    def call(seed):
        for turn in range(20):
            task = list(TASKS)[(turn + seed) % 3]
            ask(engine, learned, [learned.picture(turn)], PredictionOptions(task=task))

    with ThreadPoolExecutor(3) as callers:
        list(callers.map(call, range(3)))
    assert engine.predictor.pool.stats().evictions >= 15
    assert len(built) <= 3  # the base and the two experts that fit beside it and the unified delta


def test_requests_that_come_while_the_device_is_busy_share_a_batch(make_engine, learned, gate):
    heard = Heard()
    engine = make_engine(metrics=heard, max_batch=8)
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", gate):
        first = submit(engine, learned, [learned.picture(0)], options)
        assert gate.reached.wait(WAIT_S)
        rest = [submit(engine, learned, [learned.picture(seed)], options) for seed in range(6)]
        gate.opened.set()
        for answered in [first, *rest]:
            answered.result(WAIT_S)
    assert heard.sizes("image") == [1, 1, 6]
    assert len(heard.sizes("text")) == 1


def test_a_long_request_does_not_keep_a_short_one_of_the_same_expert_waiting(make_engine, learned, gate):
    engine = make_engine(max_batch=4)
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", gate):
        ended = []
        long = submit(engine, learned, [learned.picture(0)] * 40, options)
        long.add_done_callback(lambda _: ended.append("long"))
        assert gate.reached.wait(WAIT_S)
        short = submit(engine, learned, [learned.picture(1)], options)
        short.add_done_callback(lambda _: ended.append("short"))
        gate.opened.set()
        long.result(WAIT_S)
    assert ended == ["short", "long"]


def test_an_expert_that_does_not_fit_is_answered_before_the_others_have_nothing_left(make_engine, learned):
    engine = make_engine(models=4, max_batch=1)
    busy = [
        submit(engine, learned, [learned.picture(0)] * 250, PredictionOptions(task=task))
        for task in ("pets", "flowers")
        for _ in range(4)
    ]
    assert ask(engine, learned, [learned.picture(1)], PredictionOptions(task="digits"))
    assert not any(answered.done() for answered in busy)
    for answered in busy:
        answered.cancel()


def test_needs_that_are_all_known_already_are_met_at_once(make_engine, learned):
    engine = make_engine()
    ask(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
    who = Participant(learned.base, learned.manifest, "pets")
    task = learned.manifest.task("pets")
    need = ClassifierNeeded(who, task.classes, task.templates, digest_choices(task.classes, task.templates))

    class OnlyWeights:
        """Asks twice for what is kept, and for no image."""

        images = ()

        def answer(self):
            first = yield [need]
            second = yield [need, need]
            return [first, second]

    request = Request(OnlyWeights(), None)
    engine._backlog.enter(request)  # noqa: SLF001 - no inquiry of today needs class weights alone
    engine._backlog.place(request, request.begin())  # noqa: SLF001
    first, second = request.answered.result(0)
    assert [*first, *second] == [engine.predictor.class_weights.find(need.name)] * 3


def test_a_batch_waits_a_moment_for_images_that_are_being_read(make_engine, learned):
    heard = Heard()
    engine = make_engine(metrics=heard, max_wait_s=WAIT_S, max_batch=2)
    options = PredictionOptions(task="pets")
    ask(engine, learned, [learned.picture(0)], options)
    with engine.expecting(1):
        first = submit(engine, learned, [learned.picture(0)], options)
        second = submit(engine, learned, [learned.picture(1)], options)
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert heard.sizes("image") == [1, 2]


def test_a_large_label_set_lets_others_go_before_it_is_done(make_engine, learned):
    heard = Heard()
    engine = make_engine(metrics=heard)
    ask(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
    many = submit(
        engine,
        learned,
        [learned.picture(0)],
        PredictionOptions(task="flowers", labels=[f"x{n}" for n in range(3000)]),
    )
    wait_until(lambda: len(heard.sizes("text")) > 2)
    ask(engine, learned, [learned.picture(1)], PredictionOptions(task="pets"))
    assert not many.done()
    assert len(many.result(WAIT_S)[0][0].predictions) == 5


def test_the_text_tower_does_not_run_for_a_label_set_that_was_asked_before(make_engine, learned):
    heard = Heard()
    engine = make_engine(metrics=heard)
    for seed in range(4):
        ask(engine, learned, [learned.picture(seed)], PredictionOptions(task="pets"))
    assert len(heard.sizes("text")) == 1


def test_more_than_may_wait_is_refused_and_told_when_to_come_again(make_engine, learned, gate):
    heard = Heard()
    engine = make_engine(metrics=heard, max_queue=4)
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", gate):
        waiting = [submit(engine, learned, [learned.picture(0)] * 2, options) for _ in range(2)]
        assert gate.reached.wait(WAIT_S)
        assert engine.status().is_overloaded
        with pytest.raises(OverloadedError, match="4 images wait already, and at most 4 may") as refused:
            submit(engine, learned, [learned.picture(0)], options)
        assert int(refused.value.headers["Retry-After"]) >= 1
        with pytest.raises(OverloadedError), engine.expecting(1):
            pytest.fail("it was let in")
        gate.opened.set()
        for answered in waiting:
            answered.result(WAIT_S)
    assert heard.reasons == ["overloaded"]
    ask(engine, learned, [learned.picture(0)], options)


def test_a_request_larger_than_the_queue_is_answered_when_it_is_alone(make_engine, learned):
    assert len(ask(make_engine(max_queue=2), learned, [learned.picture(0)] * 5)[0]) == 5


def test_what_is_late_gets_an_error_and_is_not_computed(make_engine, learned, gate):
    heard = Heard()
    engine = make_engine(metrics=heard)
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", gate):
        first = submit(engine, learned, [learned.picture(0)], options)
        assert gate.reached.wait(WAIT_S)
        late = submit(engine, learned, [learned.picture(1)], options, deadline=time.monotonic() + 0.01)
        with pytest.raises(DeadlineExceededError):
            late.result(WAIT_S)
        gate.opened.set()
        first.result(WAIT_S)
    assert heard.sizes("image") == [1, 1]
    assert engine.status().queued_images == 0


def test_what_the_caller_gave_up_is_not_computed(make_engine, learned, gate):
    heard = Heard()
    engine = make_engine(metrics=heard)
    options = PredictionOptions(task="pets")
    with hooked(engine, learned, "pets", gate):
        first = submit(engine, learned, [learned.picture(0)], options)
        assert gate.reached.wait(WAIT_S)
        given_up = submit(engine, learned, [learned.picture(1)] * 3, options)
        assert given_up.cancel()
        assert engine.status().queued_images == 1
        wait_until(lambda: "cancelled" in heard.reasons)
        gate.opened.set()
        first.result(WAIT_S)
        with pytest.raises(CancelledError):
            given_up.result()
    assert heard.sizes("image") == [1, 1]


def test_what_cannot_be_answered_is_refused_before_it_waits(make_engine, learned):
    engine = make_engine()
    with pytest.raises(NotFoundError, match="nope"):
        submit(engine, learned, [learned.picture(0)], PredictionOptions(task="nope"))
    with pytest.raises(ValueError, match="this revision was made on base"):
        engine.submit(
            learned.base.__class__("x", "0" * 64, learned.architecture, learned.base.preprocessing),
            learned.manifest,
            [learned.picture(0)],
            options=[PredictionOptions(task="pets")],
        )
    assert engine.status().queued_images == 0


def test_a_prefetched_expert_is_in_memory_before_anyone_asks(make_engine, learned):
    engine = make_engine()
    engine.prefetch(learned.base, learned.manifest, "digits")
    digest = learned.manifest.expert_digest("digits")
    wait_until(lambda: digest in {entry.digest for entry in engine.predictor.pool.entries()})
    wait_until(lambda: engine.predictor.pool.stats().leased == 0)
    misses = engine.predictor.pool.stats().misses
    ask(engine, learned, [learned.picture(0)], PredictionOptions(task="digits"))
    assert engine.predictor.pool.stats().misses == misses


def test_closing_finishes_what_was_accepted_and_refuses_what_comes(make_engine, learned):
    engine = make_engine()
    accepted = [submit(engine, learned, [learned.picture(seed)] * 8) for seed in range(4)]
    closing = threading.Thread(target=engine.close, args=(WAIT_S,))
    closing.start()
    wait_until(lambda: is_refused(engine, learned))
    for answered in accepted:
        assert len(answered.result(WAIT_S)[0]) == 8
    closing.join(WAIT_S)
    assert not engine.status().is_alive


def test_closing_in_a_hurry_tells_those_whose_batch_runs(make_engine, learned, gate):
    engine = make_engine()
    with hooked(engine, learned, "pets", gate):
        running = submit(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
        assert gate.reached.wait(WAIT_S)
        engine.close(0.01)
        with pytest.raises(OverloadedError, match="stopped"):
            running.result(WAIT_S)


def test_closing_in_a_hurry_tells_those_who_wait(make_engine, learned, gate):
    engine = make_engine()
    with hooked(engine, learned, "pets", gate):
        submit(engine, learned, [learned.picture(0)], PredictionOptions(task="pets"))
        assert gate.reached.wait(WAIT_S)
        waiting = submit(engine, learned, [learned.picture(0)], PredictionOptions(task="flowers"))
        engine.close(0.01)
        with pytest.raises(OverloadedError, match="stopped"):
            waiting.result(WAIT_S)


def test_the_weights_that_ran_are_those_that_the_digest_names(make_engine, learned):
    """Equal digests are equal weights: what ran is hashed, and compared with what the store rebuilds."""
    base = learned.store.load_base(learned.base.digest)
    ran = {}

    def remember(task):
        def hook(_module, _inputs):
            with engine.predictor.pool.lease(learned.base, learned.manifest, task) as expert:
                ran[expert.digest] = {
                    name: tensor.clone() for name, tensor in expert.model.state_dict().items()
                }

        return hook

    engine = make_engine()
    for task in TASKS:
        with hooked(engine, learned, task, remember(task)):
            shares = ask(engine, learned, [learned.picture(0)], PredictionOptions(task=task))[0][0].experts
        expected = base.space.views(learned.store.rebuild(base, learned.manifest, task).flat)
        weights = ran[shares[0].digest]
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert len(ran) == len(TASKS)
