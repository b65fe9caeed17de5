"""The report of a run: CSV files, tables in the papers' layout and figures, as far as the run came."""

import csv
import json
import math

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from bench.continual.figures.comparison import method_comparison
from bench.continual.figures.features import draw_features, feature_map
from bench.continual.figures.lines import accuracy_curves, fidelity_drift, storage_by_tasks
from bench.continual.figures.matrices import accuracy_heat_maps, mask_overlaps, routing_confusion
from bench.continual.figures.style import panels, plain, spread
from bench.continual.reading import read_results
from bench.continual.report import write_report
from bench.errors import BenchError
from bench.machine import describe_machine
from store.safefile import write_safetensors

TASKS = ["birds", "signs", "a|b $x$"]


def _method(matrix, *, size_bytes=(10e6, 11e6, 12e6), kept=None):
    return {
        "matrix": matrix,
        "union": {"matrix": [None if row is None else [value / 2 for value in row] for row in matrix]},
        "bytes_by_step": [size if row else None for size, row in zip(size_bytes, matrix, strict=True)],
        "kept_bytes_by_step": [
            size if row else None for size, row in zip(kept or size_bytes, matrix, strict=True)
        ],
        "seconds": None if None in matrix else 150.0,
    }


@pytest.fixture
def document():
    """A run of three tasks with every finding; a method of it was killed after its first step."""
    revisions = [
        {
            task: {"relative_l2": 0.1 * at, "cosine": 1 - 0.1 * at, "density": 0.8, "rescaler": 1.0}
            for task in TASKS[: at + 1]
        }
        for at in range(3)
    ]
    return {
        "format": "condu-continual-1",
        "suite": "three",
        "order": "I",
        "tasks": TASKS,
        "setting": "few-shot",
        "tuning": "full",
        "seed": 0,
        "shots": 5,
        "num_labels_of_union": 12,
        "methods": {
            "zero-shot": _method([[90, 20, 30]] * 3, size_bytes=(9e6,) * 3),
            "condu": _method([[90, 20, 30], [70, 80, 50], [60, 50, 100]]),
            "emr": _method([[90, 20, 30], [71, 80, 50], [60, 50, 99]], kept=(18e6, 27e6, 36e6)),
            "ties": _method([[80, 20, 30], None, None], kept=(18e6, 27e6, 36e6)),
        },
        "fidelity": {"condu": revisions},
        "overlap": {"condu": {"tasks": TASKS, "jaccard": [[1, 0.2, 0.3], [0.2, 1, 0.4], [0.3, 0.4, 1]]}},
        "routing": {
            "condu": {
                "rows": TASKS,
                "columns": ["base", *TASKS],
                "chosen_first": [[0, 0.8, 0.2, 0], [0, 0.1, 0.9, 0], [0, 0, 0, 1]],
                "weight": [[0.25] * 4] * 3,
            }
        },
        "complete": False,
    }


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Images of two tasks around their prototypes; one image of the first lies with the second."""
    generator = torch.Generator().manual_seed(0)
    towards = torch.eye(8)[:2]
    tasks = torch.tensor([0] * 10 + [1] * 10)
    images = towards[tasks] + 0.05 * torch.randn(20, 8, generator=generator)
    images[0] = towards[1]
    path = tmp_path_factory.mktemp("features") / "run.features.safetensors"
    write_safetensors(
        path,
        {
            "features": images,
            "task": tasks,
            "label": torch.zeros(20, dtype=torch.int64),
            "prototypes": towards,
            "prototype_task": torch.tensor([0, 1]),
        },
    )
    return path


def _rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_is_two_csv_files_a_page_and_eight_figures(document, features, tmp_path):
    files = write_report(document, features, tmp_path / "new", stem="run")

    assert [path.name for path in files] == [
        "run.csv",
        "run.scores.csv",
        "run.md",
        *(
            f"run.{name}.png"
            for name in (
                "comparison",
                "heat-maps",
                "curves",
                "storage",
                "fidelity",
                "overlap",
                "routing",
                "features",
            )
        ),
    ]
    for path in files[3:]:
        with Image.open(path) as image:
            assert min(image.size) > 300


def test_every_accuracy_measured_is_a_row_and_what_was_not_is_none(document, tmp_path):
    write_report(document, None, tmp_path, stem="run")

    rows = _rows(tmp_path / "run.csv")

    assert len(rows) == 2 * (3 * 9 + 3)
    assert {
        "method": "condu",
        "label_set": "union",
        "step": "2",
        "task": "a|b $x$",
        "accuracy": "25.0000",
    } in rows
    assert [row["step"] for row in rows if row["method"] == "ties"] == ["1"] * 6


def test_scores_are_computed_from_the_matrix_and_the_first_task_has_no_transfer(document, tmp_path):
    document["methods"]["condu"]["last"] = 99.0  # a number that says otherwise is not believed
    write_report(document, None, tmp_path, stem="run")

    rows = [row for row in _rows(tmp_path / "run.scores.csv") if row["method"] == "condu"]

    assert rows[0] == {
        "method": "condu", "label_set": "own", "task": "birds",
        "transfer": "", "average": "73.3333", "last": "60.0000",
    }  # fmt: skip
    assert rows[3]["task"] == "mean"
    assert (rows[3]["transfer"], rows[3]["last"]) == ("30.0000", "70.0000")
    assert not any(row["method"] == "ties" for row in _rows(tmp_path / "run.scores.csv"))


def test_the_page_has_a_block_a_score_with_a_row_a_method_and_the_mean_last(document, tmp_path):
    write_report(document, None, tmp_path, stem="run")

    page = (tmp_path / "run.md").read_text(encoding="utf-8")

    assert page.startswith("# three, order I, few-shot, 5 shots, full fine-tuning, seed 0\n")
    transfer = page.split("## Transfer, among the task's own labels\n\n")[1].split("\n\n")[0].splitlines()
    assert transfer[0] == "| method | birds | signs | a\\|b $x$ | mean |"
    assert transfer[3] == "| condu | - | 20.0 | 40.0 | 30.0 |"
    assert "## Last, among all 12 labels of the suite" in page
    assert "Not finished, and so without scores: ties (1 of 3 steps)." in page
    assert "| ties | - | - | - | - | - | - | - | - | - |" in page
    assert "| emr | 30.0 | 61.1 | 69.7 | 15.0 | 30.6 | 34.8 | 12 MB | 36 MB | 2.5 min |" in page
    assert "![Overlap of the tasks' masks](run.overlap.png)" in page


def test_a_run_that_has_only_begun_is_reported_as_far_as_it_came(document, tmp_path):
    del document["fidelity"], document["routing"], document["overlap"]
    document["methods"] = {"ties": document["methods"]["ties"]}

    files = write_report(document, None, tmp_path, stem="run")

    assert {path.name for path in files} == {
        "run.csv",
        "run.scores.csv",
        "run.md",
        "run.heat-maps.png",
        "run.curves.png",
        "run.storage.png",
    }


def test_a_run_without_a_row_is_reported_without_figures(document, tmp_path):
    document = {**document, "methods": {}, "fidelity": {}, "routing": {}, "overlap": {}}

    files = write_report(document, None, tmp_path, stem="run")

    assert [path.suffix for path in files] == [".csv", ".csv", ".md"]


def test_the_machine_is_named_where_the_document_does(document, tmp_path):
    write_report({**document, "machine": describe_machine()}, None, tmp_path, stem="run")

    assert "\nMeasured on " in (tmp_path / "run.md").read_text(encoding="utf-8")


def test_a_single_task_has_a_report_without_transfer(document, tmp_path):
    document["tasks"] = ["birds"]
    document["methods"] = {"condu": _method([[80.0]], size_bytes=(1e6,))}
    document["overlap"] = {"condu": {"tasks": ["birds"], "jaccard": [[1.0]]}}
    del document["fidelity"], document["routing"]

    write_report(document, None, tmp_path, stem="run")

    assert "| condu | - | 80.0 | 80.0 |" in (tmp_path / "run.md").read_text(encoding="utf-8")


def test_figures_depend_on_the_document_alone(document, tmp_path):
    first = write_report(document, None, tmp_path / "a", stem="run")
    again = write_report(json.loads(json.dumps(document)), None, tmp_path / "b", stem="run")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(
    "draw", [method_comparison, accuracy_heat_maps, accuracy_curves, storage_by_tasks, routing_confusion]
)
def test_a_figure_says_what_is_seen_and_of_which_run(draw, document):
    figure = draw(read_results(document))

    assert isinstance(figure, Figure)
    assert figure.get_suptitle().endswith("\nthree, order I, few-shot, 5 shots, full fine-tuning, seed 0")


def test_a_heat_map_frames_the_step_that_learns_a_task_and_hatches_what_is_missing(document):
    figure = accuracy_heat_maps(read_results(document))

    ties = next(axes for axes in figure.axes if axes.get_title() == "ties")
    hatched = [patch for patch in ties.patches if patch.get_hatch()]
    assert len(hatched) == 6
    assert len(ties.patches) - len(hatched) == 3


def test_the_overlap_of_a_task_with_itself_is_not_shown_as_a_finding(document):
    axes = mask_overlaps(read_results(document)).axes[0]

    assert axes.get_title() == "condu: pairs share 20% to 40%"
    assert "1.00" not in {text.get_text() for text in axes.texts}


def test_an_expert_s_drift_begins_at_its_own_step(document):
    axes = fidelity_drift(read_results(document)).axes[0]

    assert [len(line.get_xdata()) for line in axes.lines[:3]] == [3, 2, 1]


def test_methods_that_keep_the_same_bytes_share_a_line(document):
    axes = storage_by_tasks(read_results(document)).axes[0]

    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["zero-shot", "condu, emr, ties"]
    assert labels[2] == "emr, ties: what learning the next task needs"


def test_images_and_prototypes_are_projected_together_and_alike_each_time(features):
    found, again = feature_map(features), feature_map(features)

    assert found.images.shape == (20, 2)
    assert found.prototypes.shape == (2, 2)
    assert (found.images == again.images).all()
    assert found.share_near_own == pytest.approx(0.95)
    assert "95% of these images" in draw_features(found, ["one", "two"], "a run").axes[0].get_title()


def test_a_file_of_features_that_is_none_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "run.features.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BenchError, match=r"run\.features\.safetensors cannot be read"):
        feature_map(path)

    write_safetensors(path, {"features": torch.zeros(2, 2)})
    with pytest.raises(BenchError, match="has no tensor 'task'"):
        feature_map(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "something"}, "says format 'condu-continual-1', this one 'something'"),
        (
            {"methods": {"condu": {"matrix": [None]}}},
            "method 'condu': there are 1 rows where the run has 3 tasks",
        ),
        ({"methods": {"condu": {"matrix": [[1.0], None, None]}}}, "1 entries in row 1"),
        ({"methods": {"condu": {"matrix": [None] * 3, "bytes_by_step": [1]}}}, "bytes of 1 steps"),
        ({"methods": {"condu": {"matrix": [[math.inf] * 3] * 3}}}, "row 1, column 1 is inf"),
    ],
)
def test_a_document_of_another_kind_is_refused(document, tmp_path, change, said):
    with pytest.raises(BenchError, match=said) as caught:
        write_report({**document, **change}, None, tmp_path, stem="run")

    assert caught.value.remedy


def test_labels_beside_points_keep_their_order_and_their_distance():
    assert spread([1.0, 1.0, 5.0], gap=1.0) == pytest.approx([0.5, 1.5, 5.0])
    assert spread([], gap=1.0) == []


def test_panels_fill_rows_as_evenly_as_they_can():
    figure, grid = panels(5, width=1.0, height=1.0)

    assert len(grid) == 5
    assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]


def test_a_name_is_shown_short_and_never_as_a_formula():
    assert plain("a $long$ name of a task, indeed") == r"a \$long\$ name of a…"
