import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from store.blobs import FileBlobs
from store.errors import CorruptBlobError, NotFoundError
from tests.tiny_clip import TINY_CONFIG
from tests.vlm.conftest import TASKS, TEMPLATES, learn
from vlm.class_weights import Classifier, class_weights
from vlm.errors import (
    ImageRejectedError,
    InvalidLabelsError,
    InvalidOptionsError,
    InvalidPrototypesError,
    InvalidTemplatesError,
    NoLabelsError,
)
from vlm.features import image_features
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions
from vlm.prompts import DEFAULT_TEMPLATES
from vlm.prototypes import PrototypeSet

UNION = ("cat", "dog", "rose", "daisy", "tulip", "one", "two", "three")


@pytest.fixture(scope="module")
def predictor(learned):
    return Predictor(learned.pool())


def ask(predictor, learned, images, manifest="head", **options):
    manifest = learned.manifest if manifest == "head" else manifest
    return predictor.classify(learned.base, manifest, images, options=PredictionOptions(**options))


def chances(result):
    return {prediction.label: prediction.probability for prediction in result.predictions}


def own_logits(learned, task, images, labels, templates):
    """What one expert alone says, from weights that the store rebuilds."""
    base = learned.store.load_base(learned.base.digest)
    tensors = learned.base_tensors
    if task is not None:
        tensors = base.space.views(learned.store.rebuild(base, learned.manifest, task).flat)
    model = learned.architecture.build(tensors)
    weights = class_weights(model, learned.architecture.tokenizer(), labels=labels, templates=templates)
    return Classifier.of(model, weights).logits(image_features(model, images))


def scores_of(learned, images):
    theta0 = learned.architecture.build(learned.base_tensors)
    features = image_features(theta0, images)
    sets = [
        PrototypeSet.from_bytes(learned.store.blobs.read(task.prototypes)) for task in learned.manifest.tasks
    ]
    return torch.stack([(features @ prototypes.vectors.T).amax(dim=1) for prototypes in sets], dim=1)


def assert_answers(result, labels, expected):
    assert [prediction.label for prediction in result.predictions] == [
        labels[at]
        for at in expected.sort(descending=True, stable=True).indices[: len(result.predictions)].tolist()
    ]
    found = torch.tensor([chances(result)[label] for label in labels])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_named_task_is_answered_by_its_expert_alone(predictor, learned):
    images = learned.pictures(3)
    results = ask(predictor, learned, list(images), task="flowers")
    expected = own_logits(learned, "flowers", images, TASKS["flowers"], TEMPLATES).softmax(dim=1)
    for result, row in zip(results, expected, strict=True):
        assert_answers(result, TASKS["flowers"], row)
        share = result.experts[0]
        assert (len(result.experts), share.task, share.weight) == (1, "flowers", 1.0)
        assert share.digest == learned.manifest.expert_digest("flowers")
        assert share.similarity is None


def test_a_named_task_with_other_labels_keeps_its_own_templates(predictor, learned):
    images = learned.pictures(2)
    labels = ("sea otter", "cat")
    results = ask(predictor, learned, list(images), task="pets", labels=labels)
    expected = own_logits(learned, "pets", images, labels, TEMPLATES).softmax(dim=1)
    for result, row in zip(results, expected, strict=True):
        assert_answers(result, labels, row)


def test_a_named_task_may_be_asked_among_all_that_the_model_has_learned(predictor, learned):
    images = learned.pictures(3)
    results = ask(predictor, learned, list(images), task="flowers", label_set="union", top_k=99)
    expected = own_logits(learned, "flowers", images, UNION, TEMPLATES).softmax(dim=1)
    for result, row in zip(results, expected, strict=True):
        assert [share.task for share in result.experts] == ["flowers"]
        assert_answers(result, UNION, row)


@pytest.mark.parametrize(("task", "label_set"), [("flowers", "own"), (None, "union")])
def test_the_label_set_that_goes_without_saying_may_be_said(predictor, learned, task, label_set):
    images = [learned.picture(0)]
    said = ask(predictor, learned, images, task=task, label_set=label_set)
    assert said == ask(predictor, learned, images, task=task)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label_set": "own"}, "no task is named; name one, or use 'union'"),
        ({"label_set": "union", "labels": ("cat",)}, "labels and label_set 'union' both say"),
        ({"label_set": "seen"}, "label_set 'seen': use one of own, union"),
    ],
)
def test_a_label_set_that_makes_no_sense_is_refused(options, told):
    with pytest.raises(InvalidOptionsError, match=told):
        PredictionOptions(**options)


def test_a_model_without_tasks_has_no_union_of_classes(predictor, learned):
    with pytest.raises(NoLabelsError, match="give labels"):
        ask(predictor, learned, [learned.picture(0)], manifest=None, label_set="union")


def test_without_a_task_the_base_and_the_nearest_experts_answer_with_equal_weights(predictor, learned):
    images = learned.pictures(6)
    results = ask(predictor, learned, list(images), k=2, top_k=99)
    scores = scores_of(learned, images)
    names = list(TASKS)
    everyone = {task: own_logits(learned, task, images, UNION, DEFAULT_TEMPLATES) for task in (None, *names)}
    for row, result in enumerate(results):
        nearest = [names[at] for at in scores[row].sort(descending=True).indices[:2].tolist()]
        assert [share.task for share in result.experts] == [None, *nearest]
        assert [share.weight for share in result.experts] == pytest.approx([1 / 3] * 3)
        assert result.experts[0].digest == learned.base.digest
        assert result.experts[0].similarity is None
        assert result.experts[1].similarity == pytest.approx(float(scores[row].max()), abs=1e-5)
        mean = torch.stack([everyone[task][row] for task in (None, *nearest)]).mean(dim=0)
        assert_answers(result, UNION, mean.softmax(dim=0))


@pytest.mark.parametrize(
    "options",
    [{}, {"k": 1, "weighting": "softmax"}, {"k": 0}, {"k": 2, "include_base": False}, {"task": "flowers"}],
)
def test_who_would_answer_is_told_without_asking_an_expert(learned, options):
    asked, routing = Predictor(learned.pool()), Predictor(learned.pool())
    images = learned.pictures(5)
    answers = ask(asked, learned, list(images), **options)
    routes = routing.route(learned.base, learned.manifest, images, options=PredictionOptions(**options))
    assert routes == [answer.experts for answer in answers]
    with routing.pool.lease(learned.base, None, None):
        assert routing.pool.stats().entries == 1


def test_a_model_that_has_learned_nothing_would_answer_with_its_base(predictor, learned):
    (route,) = predictor.route(learned.base, None, learned.pictures(1))
    assert [(share.task, share.weight) for share in route] == [(None, 1.0)]


def test_pictures_of_one_request_may_have_different_experts(predictor, learned):
    images = [learned.picture(seed) for seed in range(40)]
    results = ask(predictor, learned, images, k=1, include_base=False)
    assert len({result.experts[0].task for result in results}) > 1


@pytest.mark.parametrize("weighting", ["uniform", "similarity", "softmax"])
@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_votes_are_combined_as_weighting_and_space_say(predictor, learned, weighting, space):
    images = learned.pictures(2)
    results = ask(
        predictor, learned, list(images), weighting=weighting, space=space, temperature=0.3, top_k=99
    )
    everyone = {task: own_logits(learned, task, images, UNION, DEFAULT_TEMPLATES) for task in (None, *TASKS)}
    for row, result in enumerate(results):
        votes = {
            task: found[row] if space == "logits" else found[row].softmax(dim=0)
            for task, found in everyone.items()
        }
        combined = sum(share.weight * votes[share.task] for share in result.experts)
        assert sum(share.weight for share in result.experts) == pytest.approx(1)
        assert_answers(result, UNION, combined.softmax(dim=0) if space == "logits" else combined)


def test_each_picture_is_encoded_once_by_each_expert_that_answers_for_it(learned):
    predictor = Predictor(learned.pool())
    counts = {}
    handles = []
    for task in (None, *TASKS):
        with predictor.pool.lease(learned.base, learned.manifest, task) as expert:
            counts[task] = 0

            def count(_module, inputs, task=task):
                counts[task] += len(inputs[0])

            handles.append(expert.model.visual.register_forward_pre_hook(count))
    results = ask(predictor, learned, [learned.picture(seed) for seed in range(20)], k=1)
    chosen = [share.task for result in results for share in result.experts]
    assert counts[None] == 20  # for the choice and for its own answer together
    assert {task: counts[task] for task in TASKS} == {task: chosen.count(task) for task in TASKS}


def test_experts_that_nobody_chose_are_not_rebuilt(learned):
    predictor = Predictor(learned.pool())
    result = ask(predictor, learned, [learned.picture(0)], k=1)[0]
    assert len(result.experts) == 2
    assert predictor.pool.stats().entries == 3  # the base, the unified delta and the one expert


def test_labels_are_those_given_else_the_tasks_else_the_models(predictor, learned):
    image = [learned.picture(0)]
    assert set(chances(ask(predictor, learned, image, labels=("x", "y", "x"), top_k=9)[0])) == {"x", "y"}
    assert set(chances(ask(predictor, learned, image, task="pets", top_k=9)[0])) == {"cat", "dog"}
    assert set(chances(ask(predictor, learned, image, top_k=99)[0])) == set(UNION)


def test_an_older_revision_answers_with_what_it_knew(predictor, learned):
    result = ask(predictor, learned, [learned.picture(0)], manifest=learned.manifests[0], top_k=99)[0]
    assert set(chances(result)) == {"cat", "dog"}
    assert [share.digest for share in result.experts] == [
        learned.base.digest,
        learned.manifests[0].expert_digest("pets"),
    ]


def test_top_k_labels_come_back_likeliest_first(predictor, learned):
    result = ask(predictor, learned, [learned.picture(0)], top_k=3)[0]
    values = [prediction.probability for prediction in result.predictions]
    assert len(values) == 3
    assert values == sorted(values, reverse=True)
    assert sum(chances(ask(predictor, learned, [learned.picture(0)], top_k=99)[0]).values()) == pytest.approx(
        1
    )


def test_a_rejected_image_gets_its_error_and_the_others_their_answers(predictor, learned):
    error = ImageRejectedError("broken", "the image is truncated")
    results = ask(predictor, learned, [learned.picture(0), error, learned.picture(1)], task="pets")
    alone = ask(predictor, learned, [learned.picture(1)], task="pets")[0]
    assert results[1].error is error
    assert results[1].predictions == results[1].experts == ()
    assert chances(results[2]) == pytest.approx(chances(alone), rel=1e-4)
    assert results[0].error is None


def test_a_request_without_a_usable_image_still_has_results(predictor, learned):
    error = ImageRejectedError("empty", "no bytes")
    assert [result.error for result in ask(predictor, learned, [error, error])] == [error, error]
    assert ask(predictor, learned, []) == []


def test_a_model_without_tasks_is_its_base_if_labels_are_given(predictor, learned):
    images = learned.pictures(2)
    labels = ("cat", "dog")
    results = ask(predictor, learned, list(images), manifest=None, labels=labels)
    expected = own_logits(learned, None, images, labels, DEFAULT_TEMPLATES).softmax(dim=1)
    for result, row in zip(results, expected, strict=True):
        assert_answers(result, labels, row)
        assert [(share.task, share.weight) for share in result.experts] == [(None, 1.0)]


def test_a_model_without_tasks_and_no_labels_is_an_error(predictor, learned):
    with pytest.raises(NoLabelsError, match="give labels"):
        ask(predictor, learned, [learned.picture(0)], manifest=None)
    emptied = replace(learned.manifest, tasks=(), unified=None)
    with pytest.raises(NoLabelsError):
        ask(predictor, learned, [learned.picture(0)], manifest=emptied)


def test_a_model_without_tasks_and_without_the_base_is_an_error(predictor, learned):
    with pytest.raises(InvalidOptionsError, match="include_base"):
        ask(predictor, learned, [learned.picture(0)], manifest=None, labels=("a",), include_base=False)


def test_an_unknown_task_is_not_found_even_without_images(predictor, learned):
    with pytest.raises(NotFoundError, match="birds"):
        ask(predictor, learned, [], task="birds")
    with pytest.raises(NotFoundError, match="no task yet"):
        ask(predictor, learned, [], manifest=None, task="pets")


def test_k_zero_is_the_base_alone(predictor, learned):
    result = ask(predictor, learned, [learned.picture(0)], k=0)[0]
    assert [share.task for share in result.experts] == [None]


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 0},
        {"k": -1},
        {"k": 0, "include_base": False},
        {"weighting": "loudest"},
        {"space": "hyper"},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
    ],
)
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(InvalidOptionsError):
        PredictionOptions(**options)


def test_bad_labels_and_templates_are_refused_before_any_model_runs(learned):
    predictor = Predictor(learned.pool(), max_labels=3)
    for options, error in [
        ({"labels": ()}, InvalidLabelsError),
        ({"labels": ("a", "b", "c", "d")}, InvalidLabelsError),
        ({"templates": ()}, InvalidTemplatesError),
        ({"templates": ("no slot",)}, InvalidTemplatesError),
    ]:
        with pytest.raises(error):
            ask(predictor, learned, [learned.picture(0)], **options)
    assert predictor.pool.stats().misses == 0


def test_more_prompts_than_a_request_may_cost_are_refused(predictor, learned):
    labels = tuple(f"class {n}" for n in range(1000))
    templates = tuple(f"{{}} number {n}" for n in range(101))
    with pytest.raises(InvalidLabelsError, match="prompts"):
        ask(predictor, learned, [learned.picture(0)], labels=labels, templates=templates)


def test_class_weights_are_computed_once_per_expert_labels_and_templates(learned):
    predictor = Predictor(learned.pool())
    for _ in range(3):
        ask(predictor, learned, [learned.picture(0)], task="pets")
    assert predictor.class_weights.stats().misses == 1
    ask(predictor, learned, [learned.picture(0)], task="pets", labels=("dog", "cat"))
    ask(predictor, learned, [learned.picture(0)], task="pets", templates=("{}",))
    ask(predictor, learned, [learned.picture(0)], task="flowers", labels=("dog", "cat"))
    assert predictor.class_weights.stats().misses == 4


def test_class_weights_take_no_more_memory_than_allowed(learned):
    predictor = Predictor(learned.pool(), class_weight_cache_bytes=1000)
    for n in range(20):
        ask(predictor, learned, [learned.picture(0)], task="pets", labels=("dog", f"cat {n}"))
    assert predictor.class_weights.stats().size_bytes <= 1000


def test_prototypes_that_are_not_what_was_written_are_an_error(learned):
    predictor = Predictor(learned.pool())
    tasks = list(learned.manifest.tasks)
    other_width = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    wrong = learned.store.blobs.put(
        PrototypeSet(("cat", "dog"), ("{}",), other_width, (0, 0)).to_bytes()
    ).digest
    manifest = replace(learned.manifest, tasks=(replace(tasks[0], prototypes=wrong), *tasks[1:]))
    with pytest.raises(InvalidPrototypesError, match="dimensions"):
        ask(predictor, learned, [learned.picture(0)], manifest=manifest)


def test_damaged_prototypes_are_an_error(tmp_path):
    learned = learn(tmp_path, TINY_CONFIG, {"pets": ("cat", "dog")}, blobs=FileBlobs(tmp_path / "blobs"))
    path = next((tmp_path / "blobs").rglob(f"*{learned.manifest.tasks[0].prototypes}*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(CorruptBlobError, match="prototypes of task 'pets'"):
        ask(Predictor(learned.pool()), learned, [learned.picture(0)])


def test_threads_get_the_answers_they_would_get_alone(learned):
    predictor = Predictor(learned.pool(models=2))
    image = learned.picture(0)
    alone = {
        task: chances(ask(predictor, learned, [image], task=task, labels=UNION, top_k=8)[0]) for task in TASKS
    }
    barrier = threading.Barrier(3)

    def work(start):
        names = list(TASKS)
        barrier.wait()
        for turn in range(10):
            task = names[(start + turn) % 3]
            result = ask(predictor, learned, [image], task=task, labels=UNION, top_k=8)[0]
            assert result.experts[0].digest == learned.manifest.expert_digest(task)
            assert chances(result) == alone[task]

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(work, start) for start in range(3)]:
            future.result()


def test_an_answer_is_the_same_however_many_pictures_come_with_it(predictor, learned):
    images = [learned.picture(seed) for seed in range(70)]
    together = ask(predictor, learned, images, top_k=8)
    for at in (0, 33, 69):
        alone = ask(predictor, learned, [images[at]], top_k=8)[0]
        assert [share.task for share in alone.experts] == [share.task for share in together[at].experts]
        assert chances(alone) == pytest.approx(chances(together[at]), rel=1e-3)
