"""Transfer, Average and Last against numbers worked by hand and against the benchmark's published ones."""

import math

import pytest

from bench.continual.metrics import MatrixError, scores
from bench.errors import BenchError

#      Aircraft Caltech CIFAR  DTD   EuroSAT Flowers Food  MNIST Pet   Cars  SUN
ZERO_SHOT = [24.3, 88.4, 68.2, 44.6, 54.9, 71.0, 88.5, 59.4, 89.0, 64.7, 65.2]
ZSCL_TRANSFER = [86.0, 67.4, 45.4, 50.4, 69.1, 87.6, 61.8, 86.8, 60.1, 66.8]
ZSCL_AVERAGE = [45.1, 92.0, 80.1, 64.3, 79.5, 81.6, 89.6, 75.2, 88.9, 64.7, 68.0]
ZSCL_LAST = [40.6, 92.2, 81.3, 70.5, 94.8, 90.5, 91.9, 98.7, 93.9, 85.3, 80.2]


def test_three_tasks_come_out_as_worked_by_hand():
    found = scores([[90, 20, 30], [70, 80, 50], [60, 50, 100]])

    # Before it is learned, task 2 is seen once (20), task 3 twice (30, 50).
    assert found.transfer_by_task == (None, 20.0, 40.0)
    assert found.transfer == 30.0
    assert found.average_by_task == pytest.approx((220 / 3, 50.0, 60.0))
    assert found.average == pytest.approx(550 / 9)
    assert found.last_by_task == (60.0, 50.0, 100.0)
    assert found.last == 70.0


def test_transfer_is_the_mean_of_column_means_and_not_of_the_upper_triangle():
    found = scores([[0, 0, 90], [0, 0, 90], [0, 0, 0]])

    assert found.transfer == 45.0  # the triangle's mean would be 60


def test_a_model_that_never_changes_scores_as_published_for_zero_shot_clip():
    found = scores([ZERO_SHOT] * len(ZERO_SHOT))

    assert (round(found.transfer, 1), round(found.average, 1), round(found.last, 1)) == (69.4, 65.3, 65.3)


def test_a_matrix_with_the_published_columns_of_zscl_has_its_published_scores():
    """Below its diagonal a column is one value, such that Average_i comes out; the last row is Last_i."""
    size = len(ZSCL_LAST)
    matrix = [[0.0] * size for _ in range(size)]
    for task, (transfer, average, last) in enumerate(
        zip([0.0, *ZSCL_TRANSFER], ZSCL_AVERAGE, ZSCL_LAST, strict=True)
    ):
        for step in range(task):
            matrix[step][task] = transfer
        between = size - task - 1
        if between:
            for step in range(task, size - 1):
                matrix[step][task] = (size * average - task * transfer - last) / between
        matrix[-1][task] = last

    found = scores(matrix)

    assert round(found.transfer, 1) == 68.1
    assert found.average == pytest.approx(75.4, abs=0.06)
    assert round(found.last, 1) == 83.6


def test_a_single_task_has_no_transfer():
    found = scores([[81.5]])

    assert (found.transfer, found.average, found.last) == (None, 81.5, 81.5)
    assert found.transfer_by_task == (None,)


def test_the_ends_of_the_scale_are_percentages_and_nothing_is_rounded():
    found = scores([[0, 100.0], [100, 1 / 3]])

    assert found.last_by_task == (100.0, 1 / 3)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[1.0, 2.0], [3.0, None]], "the entry in row 2, column 2 is missing"),
        ([[1.0, 2.0], None], "row 2 of 2 is missing"),
        ([[1.0, 2.0]], "row 1 has 2 entries where the matrix has 1 rows"),
        ([[1.0, 2.0], [3.0]], "row 2 has 1 entries where the matrix has 2 rows"),
        ([], "the matrix of accuracies has no rows"),
        ([[100.5]], "the entry in row 1, column 1 is 100.5"),
        ([[-0.1]], "the entry in row 1, column 1 is -0.1"),
        ([[math.nan]], "the entry in row 1, column 1 is nan"),
        ([[math.inf]], "the entry in row 1, column 1 is inf"),
        ([["12"]], "the entry in row 1, column 1 is '12'"),
        ([[True]], "the entry in row 1, column 1 is True"),
    ],
)
def test_a_matrix_that_is_none_is_refused_with_the_place_and_the_remedy(matrix, said):
    with pytest.raises(MatrixError, match=said) as caught:
        scores(matrix)

    assert isinstance(caught.value, BenchError)
    assert caught.value.remedy
