import base64
import json
import threading

import pytest

from api.app import create_app
from tests.api.conftest import LOCAL, Installation
from tests.installing import settings_at
from tests.tiny_clip import image_bytes, tiny_image

URL = "/v1/models/animals/classify"
PICTURES = [image_bytes(tiny_image(seed), form) for seed, form in enumerate(("PNG", "JPEG", "WEBP"))]


def ask(installation, pictures=PICTURES, url=URL, **fields):
    """A multipart request, as `curl -F` makes it."""
    files = [("images", (f"{number}.png", content)) for number, content in enumerate(pictures)]
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        files += [(name, (None, str(each))) for each in values]
    return installation.post(url, files=files)


def alike(prediction):
    """The prediction as another batch size gives it: the same label, the probability up to rounding."""
    return prediction | {"probability": pytest.approx(prediction["probability"], abs=1e-5)}


def answers(installation, *args, **fields):
    response = ask(installation, *args, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_named_task_is_answered_by_its_expert_alone(learned):
    answer = answers(learned, task="pets")

    assert (answer["model"], answer["revision"], len(answer["results"])) == ("animals", 2, 3)
    digest = learned.get("/v1/models/animals/tasks/pets").json()["expert_digest"]
    for result in answer["results"]:
        assert {prediction["label"] for prediction in result["predictions"]} == {"cat", "dog"}
        assert sum(prediction["probability"] for prediction in result["predictions"]) == pytest.approx(1)
        assert result["predictions"][0]["probability"] >= result["predictions"][1]["probability"]
        assert result["experts"] == [{"task": "pets", "weight": 1.0, "digest": digest, "similarity": None}]
        assert result["error"] is None


def test_without_a_task_the_base_and_the_nearest_experts_answer_with_weights_that_sum_to_one(learned):
    for result in answers(learned, k=1)["results"]:
        tasks = [expert["task"] for expert in result["experts"]]
        assert tasks[0] is None
        assert len(tasks) == 2
        assert sum(expert["weight"] for expert in result["experts"]) == pytest.approx(1)
        assert {p["label"] for p in result["predictions"]} == {"cat", "dog", "one", "two"}


def test_the_base_can_be_left_out_and_experts_weighed_by_their_similarity(learned):
    fields = {"include_base": "false", "weighting": "softmax", "temperature": 0.1, "space": "probabilities"}

    for result in answers(learned, **fields)["results"]:
        assert {expert["task"] for expert in result["experts"]} == {"pets", "digits"}
        assert all(expert["similarity"] is not None for expert in result["experts"])


def test_labels_of_the_caller_and_top_k_bound_the_answer(learned):
    answer = answers(
        learned, labels=["red", "green", "blue", "grey"], templates=["a {} thing", "{}"], top_k=2
    )

    for result in answer["results"]:
        labels = [prediction["label"] for prediction in result["predictions"]]
        assert len(labels) == 2
        assert set(labels) <= {"red", "green", "blue", "grey"}


def test_a_named_task_may_be_asked_among_all_that_the_model_has_learned(learned):
    for result in answers(learned, task="pets", label_set="union")["results"]:
        assert {prediction["label"] for prediction in result["predictions"]} == {"cat", "dog", "one", "two"}
        assert [expert["task"] for expert in result["experts"]] == ["pets"]


def test_json_and_a_form_are_answered_alike(learned):
    images = [base64.b64encode(content).decode() for content in PICTURES]

    by_json = learned.post(URL, json={"images": images, "task": "pets", "labels": ["cat", "cow"], "top_k": 1})

    assert by_json.status_code == 200, by_json.text
    assert by_json.json() == answers(learned, task="pets", labels=["cat", "cow"], top_k=1)


def test_images_are_answered_in_their_order_and_alone_as_together(learned):
    together = answers(learned, task="pets")["results"]

    alone = [answers(learned, [content], task="pets")["results"][0] for content in PICTURES]

    for one, other in zip(together, alone, strict=True):
        for mine, theirs in zip(one["predictions"], other["predictions"], strict=True):
            assert mine == alike(theirs)


def test_an_image_that_cannot_be_read_has_an_error_of_its_own_and_the_others_are_answered(learned):
    pictures = [PICTURES[0], b"", b"not an image", PICTURES[1][: len(PICTURES[1]) // 2], PICTURES[2]]

    results = answers(learned, pictures, task="pets")["results"]

    assert [bool(result["error"]) for result in results] == [False, True, True, True, False]
    assert [result["error"]["reason"] for result in results[1:3]] == ["empty", "not_an_image"]
    assert all(result["predictions"] == [] and result["experts"] == [] for result in results[1:4])
    alone = answers(learned, [PICTURES[0]], task="pets")["results"][0]
    assert results[0]["predictions"][0] == alike(alone["predictions"][0])


def test_in_json_what_is_no_base64_is_an_error_of_its_image(learned):
    good = base64.b64encode(PICTURES[0]).decode()

    results = learned.post(URL, json={"images": ["%%%", good], "task": "pets"}).json()["results"]

    assert results[0]["error"]["reason"] == "not_an_image"
    assert results[1]["error"] is None


def test_an_older_revision_answers_as_it_did(learned):
    answer = answers(learned, revision=1)

    assert answer["revision"] == 1
    assert {expert["task"] for result in answer["results"] for expert in result["experts"]} == {None, "pets"}


def test_a_model_that_has_learned_nothing_answers_as_its_base_when_it_is_given_labels(learned):
    answer = answers(learned, url="/v1/models/fresh/classify", labels=["cat", "dog"])

    assert answer["revision"] is None
    base = learned.get("/v1/bases/tiny").json()["digest"]
    assert answer["results"][0]["experts"] == [
        {"task": None, "weight": 1.0, "digest": base, "similarity": None}
    ]


def test_a_model_that_has_learned_nothing_has_no_labels_of_its_own(learned):
    problem = ask(learned, url="/v1/models/fresh/classify").json()

    assert (problem["status"], problem["type"]) == (422, "/problems/no-labels")


@pytest.mark.parametrize(
    ("fields", "status", "slug"),
    [
        ({"task": "food"}, 404, "unknown-task"),
        ({"revision": 9}, 404, "not-found"),
        ({"task": "digits", "revision": 1}, 404, "unknown-task"),
        ({"labels": [""]}, 422, "invalid-labels"),
        ({"labels": ["cat", "  "]}, 422, "invalid-labels"),
        ({"templates": ["no slot"]}, 422, "invalid-templates"),
        ({"top_k": 0}, 422, "invalid-options"),
        ({"k": -1}, 422, "invalid-options"),
        ({"k": 0, "include_base": "false"}, 422, "invalid-options"),
        ({"temperature": 0}, 422, "invalid-options"),
        ({"temperature": "nan"}, 422, "invalid-options"),
        ({"weighting": "loudest"}, 422, "invalid-request"),
        ({"space": "outer"}, 422, "invalid-request"),
        ({"label_set": "seen"}, 422, "invalid-request"),
        ({"label_set": "own"}, 422, "invalid-options"),
        ({"label_set": "union", "labels": ["cat"]}, 422, "invalid-options"),
        ({"top_k": "many"}, 422, "invalid-request"),
        ({"lables": ["cat"]}, 422, "invalid-request"),
        ({"task": ["pets", "digits"]}, 422, "invalid-request"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(learned, fields, status, slug):
    problem = ask(learned, **fields).json()

    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")


def test_labels_that_are_empty_in_json_are_refused(learned):
    images = [base64.b64encode(PICTURES[0]).decode()]

    problem = learned.problem("POST", URL, json={"images": images, "labels": []})

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-labels")


def test_more_labels_than_the_bound_are_refused_and_as_many_are_not(data_folder):
    settings = settings_at(data_folder, max_labels=20)
    with Installation(create_app(settings), base_url=LOCAL) as condu:
        most = [f"label {number}" for number in range(20)]
        assert len(answers(condu, PICTURES[:1], labels=most, top_k=20)["results"][0]["predictions"]) == 20

        problem = ask(condu, PICTURES[:1], labels=[*most, "one more"]).json()

        assert (problem["status"], problem["type"]) == (422, "/problems/invalid-labels")
        assert "20" in problem["detail"]


def test_ten_thousand_and_one_labels_are_refused_with_their_number(learned):
    problem = ask(learned, PICTURES[:1], labels=[f"label {number}" for number in range(10_001)]).json()

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-labels")
    assert "10001" in problem["detail"].replace(",", "")


@pytest.mark.parametrize(
    ("request_", "status", "slug"),
    [
        ({"data": {"task": "pets"}}, 415, "unsupported-body"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported-body"),
        ({"content": b"x"}, 415, "unsupported-body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "invalid-request"),
        ({"content": b"[]", "headers": {"content-type": "application/json"}}, 422, "invalid-request"),
        ({"json": {"task": "pets"}}, 422, "invalid-request"),
        ({"json": {"images": []}}, 422, "invalid-request"),
        ({"files": {"task": (None, "pets")}}, 422, "invalid-request"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "unreadable-request",
        ),
    ],
    ids=["urlencoded", "text", "nothing", "no-json", "no-object", "no-images", "none", "form", "no-boundary"],
)
def test_a_body_without_images_is_refused(learned, request_, status, slug):
    problem = learned.problem("POST", URL, **request_)

    assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")


def test_an_image_field_that_is_text_is_an_error_of_its_own(learned):
    response = learned.post(URL, files=[("images", (None, "x")), ("images", ("a.png", PICTURES[0]))])

    assert [bool(result["error"]) for result in response.json()["results"]] == [True, False]


@pytest.fixture
def narrow(data_folder):
    """An installation that takes few and small images."""
    settings = settings_at(data_folder, max_images=2, image_limit_bytes=20_000, max_image_pixels=10_000)
    with Installation(create_app(settings), base_url=LOCAL) as installation:
        yield installation


def test_more_images_than_the_bound_are_refused(narrow):
    problem = ask(narrow, task="pets").json()

    assert (problem["status"], problem["type"]) == (422, "/problems/invalid-request")
    assert "at most 2" in problem["detail"]


def test_an_image_of_too_many_bytes_or_pixels_is_an_error_of_its_own(narrow):
    many_pixels = image_bytes(tiny_image(1, size=(200, 200)), "JPEG")
    for picture in (PICTURES[0] + bytes(30_000), many_pixels):
        results = answers(narrow, [picture, PICTURES[0]], task="pets")["results"]

        assert results[0]["error"]["reason"] == "too_large"
        assert results[1]["error"] is None


def test_a_body_beyond_the_bound_of_all_images_is_refused(narrow):
    problem = ask(narrow, [bytes(200_000)], task="pets").json()

    assert (problem["status"], problem["type"]) == (413, "/problems/too-large")


def test_a_question_keeps_its_revision_while_the_head_moves(condu, learn_task):
    before = answers(condu, task="pets")
    seen = []

    def keep_asking():
        seen.extend(answers(condu, task="pets") for _ in range(8))

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    learn_task("animals", "food", classes=("rice", "soup"))
    for thread in threads:
        thread.join()
    after = answers(condu, task="pets")

    assert after["revision"] == 3
    digests = {2: digest_of(before), 3: digest_of(after)}
    assert digests[2] != digests[3]
    assert len(seen) == 16
    assert all(digest_of(answer) == digests[answer["revision"]] for answer in seen)


def digest_of(answer):
    (digest,) = {expert["digest"] for result in answer["results"] for expert in result["experts"]}
    return digest


def test_a_model_that_is_not_there_cannot_answer(learned):
    assert ask(learned, url="/v1/models/nobody/classify").status_code == 404


LABEL_SETS = {"pose": ["sitting", "lying"], "animal": ["cat", "dog", "sea otter"]}


def test_several_label_sets_are_each_chosen_among_by_itself(learned):
    asked = {"task": "pets", "templates": ["{}"], "top_k": 9}
    together = answers(learned, label_sets=json.dumps(LABEL_SETS), **asked)
    for name, labels in LABEL_SETS.items():
        alone = answers(learned, labels=labels, **asked)
        for one, each in zip(alone["results"], together["results"], strict=True):
            assert [found["label"] for found in each["label_sets"][name]] == [
                found["label"] for found in one["predictions"]
            ]
            assert [found["probability"] for found in each["label_sets"][name]] == pytest.approx(
                [found["probability"] for found in one["predictions"]], abs=1e-5
            )
            assert each["experts"] == one["experts"]
            assert each["predictions"] == []


def test_label_sets_come_in_json_as_well(learned):
    body = {"images": [base64.b64encode(PICTURES[0]).decode()], "task": "pets", "label_sets": LABEL_SETS}
    result = learned.post(URL, json=body).json()["results"][0]
    assert result["label_sets"].keys() == LABEL_SETS.keys()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"label_sets": "{nonsense"}, "'label_sets' is not JSON"),
        ({"label_sets": "{}"}, "label_sets"),
        ({"label_sets": json.dumps(LABEL_SETS), "labels": ["cat"]}, "stand in place of labels"),
        ({"label_sets": json.dumps({"empty": []})}, "label"),
    ],
)
def test_label_sets_that_make_no_sense_are_refused(learned, fields, told):
    response = ask(learned, **fields)
    assert response.status_code == 422
    assert told in response.json()["detail"]
