import json

import pytest

from vlm.answers import ExpertShare
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions
from vlm.routing_summary import RoutedPictures, RouteShare, RoutingSummary, confusion


def share(task: str | None, weight: float, similarity: float | None = None) -> ExpertShare:
    return ExpertShare(task, weight, "0" * 64, similarity)


BOTH = (share(None, 0.4), share("flowers", 0.4, 0.9), share("pets", 0.2, 0.3))
ALONE = (share(None, 0.25), share("pets", 0.75, -0.5))


def test_shares_are_counted_over_the_pictures_of_a_task():
    summary = RoutingSummary(["pets", "flowers"])
    summary.add_all("pets", [BOTH, ALONE])
    assert summary.of("pets") == RoutedPictures(
        2,
        (
            RouteShare(None, chosen_first=0.0, chosen=1.0, weight=0.325),
            RouteShare("pets", chosen_first=0.5, chosen=1.0, weight=0.475),
            RouteShare("flowers", chosen_first=0.5, chosen=0.5, weight=0.2),
        ),
    )


def test_the_base_comes_first_only_where_no_expert_took_part():
    summary = RoutingSummary(["pets"])
    summary.add_all("pets", [(share(None, 1.0),), ALONE])
    found = summary.of("pets")
    assert found is not None
    assert [each.chosen_first for each in found.shares] == [0.5, 0.5]


def test_a_task_that_was_named_answers_first_without_a_similarity():
    summary = RoutingSummary(["pets", "flowers"])
    summary.add("flowers", [share("flowers", 1.0)])
    assert summary.confusion().chosen_first == ((0.0, 0.0, 1.0),)


def test_a_confusion_has_a_row_a_true_task_and_a_column_a_participant():
    summary = RoutingSummary(["pets", "flowers"])
    summary.add_all("digits", [BOTH])
    summary.add_all("pets", [BOTH, ALONE])
    matrix = summary.confusion(["pets", "flowers", "digits"])
    assert matrix.columns == ("base", "pets", "flowers")
    assert matrix.rows == ("pets", "flowers", "digits")
    assert matrix.num_images == (2, 0, 1)
    assert matrix.chosen_first == ((0.0, 0.5, 0.5), None, (0.0, 0.0, 1.0))
    assert matrix.chosen == ((1.0, 1.0, 0.5), None, (1.0, 1.0, 1.0))
    assert matrix.weight == ((0.325, 0.475, 0.2), None, (0.4, 0.2, 0.4))


def test_rows_of_different_revisions_are_lined_up_by_task():
    early = RoutingSummary(["pets"])
    early.add("pets", ALONE)
    matrix = confusion({"pets": early.of("pets")}, columns=["flowers", "pets"])
    assert matrix.columns == ("base", "flowers", "pets")
    assert matrix.chosen_first == ((0.0, 0.0, 1.0),)


def test_a_row_is_written_and_read_back_as_json():
    summary = RoutingSummary(["pets", "flowers"])
    summary.add_all("pets", [BOTH, ALONE])
    found = summary.of("pets")
    assert found is not None
    assert RoutedPictures.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_an_answer_of_nobody_or_of_a_stranger_is_refused():
    summary = RoutingSummary(["pets"])
    with pytest.raises(ValueError, match="leave rejected pictures out"):
        summary.add("pets", [])
    with pytest.raises(ValueError, match="'flowers' answered, but is not one of"):
        summary.add("pets", BOTH)
    assert summary.of("pets") is None


def test_the_answers_of_a_predictor_are_counted_as_they_come(learned):
    predictor = Predictor(learned.pool())
    options = PredictionOptions(k=1, weighting="similarity")
    results = predictor.classify(learned.base, learned.manifest, list(learned.pictures(6)), options=options)
    summary = RoutingSummary([task.name for task in learned.manifest.tasks])
    summary.add_all("pets", [result.experts for result in results])
    found = summary.of("pets")
    assert found is not None
    assert found.num_images == 6
    assert sum(each.chosen_first for each in found.shares) == pytest.approx(1)
    assert sum(each.weight for each in found.shares) == pytest.approx(1)
    assert sum(each.chosen for each in found.shares) == pytest.approx(2)
