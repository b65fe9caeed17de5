"""The protocol on a four-task miniature: through kill and resume, with every method, and with bad input."""

import json
import signal
import time

import pytest
from PIL import Image

from bench.continual.methods import METHODS
from bench.continual.page import END, START, update_page
from bench.continual.report import write_report
from tests.bench.continual.miniature import (
    TASKS,
    arguments,
    refused,
    rows_in,
    run,
    started,
    write_base,
    write_reference,
    write_suite,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the suite, the base, and captioned pictures."""
    folder = tmp_path_factory.mktemp("protocol")
    write_suite(folder / "suite")
    write_base(folder / "base")
    write_reference(folder / "reference")
    return folder


def ask(place, name, *more):
    return arguments(place / "suite", place / "base", place / f"{name}.json", *more)


def read(place, name):
    return json.loads((place / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def everything(place):
    """The document of a run of every method."""
    run(*ask(place, "everything", "--methods", "all", "--reference", str(place / "reference")))
    return read(place, "everything")


def test_every_method_fills_both_matrices(everything):
    assert everything["complete"] is True
    assert everything["tasks"] == list(TASKS)
    assert set(everything["methods"]) == set(METHODS)
    for entry in everything["methods"].values():
        for found in (entry, entry["union"]):
            assert [len(row) for row in found["matrix"]] == [4, 4, 4, 4]
            assert all(0 <= cell <= 100 for row in found["matrix"] for cell in row)
            assert {"transfer", "average", "last", "per_task"} <= found.keys()
        assert entry["bytes"] > 0
        assert entry["seconds"] > 0


def test_one_task_alone_is_served_as_it_was_fine_tuned(everything):
    methods = everything["methods"]

    assert methods["condu"]["matrix"][0][0] == methods["individual"]["matrix"][0][0]
    assert methods["emr"]["matrix"][0][0] == methods["individual"]["matrix"][0][0]
    assert methods["condu-lora"]["matrix"][0][0] == methods["individual-lora"]["matrix"][0][0]


def test_what_was_not_learned_yet_is_answered_by_the_base_where_there_is_no_aggregation(everything):
    methods = everything["methods"]
    zero_shot = methods["zero-shot"]["matrix"][0]

    for name in ("individual", "emr", "condu-no-aggregation"):
        for step, row in enumerate(methods[name]["matrix"]):
            assert row[step + 1 :] == zero_shot[step + 1 :]


def test_a_learned_task_is_served_alike_with_and_without_aggregation(everything):
    methods = everything["methods"]

    for step in range(4):
        with_it, without = (methods[name]["matrix"][step] for name in ("condu", "condu-no-aggregation"))
        assert with_it[: step + 1] == without[: step + 1]


def test_condu_keeps_fewer_bytes_than_a_checkpoint_a_task(everything):
    methods = everything["methods"]

    assert methods["condu"]["bytes"] < methods["individual"]["bytes"]
    assert methods["condu-lora"]["bytes"] < methods["condu"]["bytes"]
    assert methods["emr"]["kept_bytes"] > methods["individual"]["bytes"]


def test_the_first_experts_delta_is_the_original_and_later_ones_drift(everything):
    first, *_, last = everything["fidelity"]["condu"]

    assert first["blobs"]["relative_l2"] < 1e-3
    assert set(last) == set(TASKS)
    assert all(found["relative_l2"] > 0.1 and found["cosine"] < 1 for found in last.values())


def test_images_are_routed_somewhere_and_masks_overlap_themselves_whole(everything):
    routing, overlap = everything["routing"]["condu"], everything["overlap"]["condu"]

    assert routing["columns"] == ["base", *TASKS]
    for row in (*routing["chosen_first"], *routing["weight"]):
        assert sum(row) == pytest.approx(1, abs=1e-5)
    assert [overlap["jaccard"][at][at] for at in range(4)] == [1, 1, 1, 1]


def test_tables_and_figures_lie_beside_the_results(place, everything):
    written = {path.name for path in place.glob("everything*")}

    assert {"everything.json", "everything.csv", "everything.md", "everything.scores.csv"} <= written
    assert len([name for name in written if name.endswith(".png")]) >= 7


def test_a_run_killed_twice_ends_as_one_that_was_left_alone(place):
    methods = ("--methods", "sequential,condu,condu-lora,average")
    disturbed = place / "apart" / "disturbed.json"
    disturbed.parent.mkdir()
    asked = arguments(place / "suite", place / "base", disturbed, *methods)
    for rows in (2, 6):
        process = started(*asked)
        while rows_in(disturbed) < rows:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = rows_in(disturbed)
    run(*asked)

    run(*ask(place, "undisturbed", *methods))
    first, second = json.loads(disturbed.read_text()), read(place, "undisturbed")
    assert kept >= 6
    for name, entry in first["methods"].items():
        assert entry["matrix"] == second["methods"][name]["matrix"]
        assert entry["union"] == second["methods"][name]["union"]
        assert entry["bytes_by_step"] == second["methods"][name]["bytes_by_step"]


def test_two_runs_that_begin_at_once_share_what_they_fetch_decode_and_train(place):
    shared = place / "shared"
    shared.mkdir()
    asked = [
        arguments(place / "suite", place / "base", shared / f"{name}.json", "--methods", "individual")
        for name in ("one", "other")
    ]

    ended = [process.communicate() and process.returncode for process in [started(*each) for each in asked]]

    assert ended == [0, 0]
    one, other = (json.loads((shared / f"{name}.json").read_text()) for name in ("one", "other"))
    assert one["methods"]["individual"]["matrix"] == other["methods"]["individual"]["matrix"]
    assert len(list((shared / "cache" / "fine-tunes").iterdir())) == len(TASKS)


def test_images_that_were_replaced_are_decoded_anew(place, tmp_path):
    suite = write_suite(tmp_path / "suite")
    run(*arguments(suite, place / "base", tmp_path / "first.json", "--methods", "zero-shot"))
    for path in sorted((suite / "dots" / "test").rglob("*.png")):
        Image.new("RGB", (32, 32), "white").save(path)

    run(*arguments(suite, place / "base", tmp_path / "second.json", "--methods", "zero-shot"))

    cells = json.loads((tmp_path / "second.json").read_text())["methods"]["zero-shot"]["matrix"][0]
    assert cells[1] == pytest.approx(100 / 3)  # every picture gets one answer, and it is right for one class


def test_a_finished_run_is_not_run_again(place, everything):
    before = (place / "everything.json").read_text()

    run(*ask(place, "everything", "--methods", "condu,ties"))

    assert json.loads(before)["methods"] == read(place, "everything")["methods"]


def test_another_method_is_added_to_a_finished_run(place):
    run(*ask(place, "grown", "--methods", "zero-shot"))
    run(*ask(place, "grown", "--methods", "average"))

    assert set(read(place, "grown")["methods"]) == {"zero-shot", "average"}


def test_few_shots_train_and_describe_on_so_many_images_a_class(place):
    run(*ask(place, "few", "--methods", "condu", "--setting", "few-shot", "--shots", "2"))

    assert read(place, "few")["num_train"] == dict.fromkeys(TASKS, 6)


def test_task_agnostic_learned_tasks_are_routed_too(place):
    run(*ask(place, "agnostic", "--methods", "condu", "--setting", "task-agnostic", "--k", "1"))

    document = read(place, "agnostic")
    assert document["setting"] == "task-agnostic"
    assert document["complete"] is True


def test_with_lora_every_method_keeps_an_adapter_a_task(place):
    methods = "individual,sequential,wise-ft,emr,ties,condu"
    run(*ask(place, "adapters", "--tuning", "lora", "--methods", methods))

    methods = read(place, "adapters")["methods"]
    assert methods["condu"]["matrix"][0][0] == methods["individual"]["matrix"][0][0]
    assert methods["individual"]["bytes"] < 2 * methods["sequential"]["bytes"]


def test_an_order_of_ones_own_is_followed(place):
    order = place / "backwards.txt"
    order.write_text("\n".join(reversed(TASKS)))

    run(*ask(place, "backwards", "--methods", "zero-shot", "--order", str(order)))

    assert read(place, "backwards")["tasks"] == list(reversed(TASKS))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--suite", "imaginary"), "imaginary"),
        (("--order", "III"), "III"),
        (("--methods", "condu,magic"), "magic"),
        (("--setting", "upside-down"), "upside-down"),
        (("--shots", "3"), "few-shot"),
        (("--methods", "zscl"), "--reference"),
        (("--setting", "few-shot", "--shots", "5"), "5"),
        (("--training", "iterations=none"), "iterations=none"),
        (("--training", "iterations"), "NAME=VALUE"),
        (("--training", "speed=3"), "speed"),
        (("--weighting", "loudest"), "loudest"),
        (("--temperature", "0"), "temperature"),
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(place, wrong, named):
    assert named in refused(*ask(place, "refused", *wrong))
    assert not (place / "refused.json").exists() or rows_in(place / "refused.json") == 0


def test_a_run_is_not_continued_with_another_seed(place, everything):
    said = refused(*ask(place, "everything", "--seed", "1"))

    assert "seed 0" in said
    assert "1" in said
    assert read(place, "everything")["methods"] == everything["methods"]


def test_a_file_of_something_else_is_not_overwritten(place):
    (place / "letter.json").write_text('{"dear": "reader"}')

    assert "letter.json" in refused(*ask(place, "letter"))
    assert json.loads((place / "letter.json").read_text()) == {"dear": "reader"}


def test_the_page_of_results_has_a_row_a_method_and_the_papers_numbers_beside_it(place, everything, tmp_path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    write_report(everything, None, results, stem="continual-mini")
    (results / "continual-mini.json").write_text(json.dumps(everything))
    (results / "continual-mini-seed1.json").write_text(json.dumps({**everything, "seed": 1}))
    (results / "ablation-rate.json").write_text(json.dumps(everything))
    (results / "routing-same.json").write_text(json.dumps(everything))
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")

    update_page(results, page)
    once = page.read_text()
    update_page(results, page)

    assert page.read_text() == once
    assert once.startswith("before")
    assert once.endswith("after\n")
    assert "old" not in once
    assert [name for name in METHODS if f"| {name} |" not in once] == []
    assert "| 70.8 | 78.8 | 87.1 |" in once
    assert "seeds 0, 1" in once
    assert "rate | condu-no-aggregation |" in once
    assert "| same | 4 and the base | uniform |" in once
    assert "results/continual-mini.comparison.png" in once
