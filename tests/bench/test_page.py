"""The tables and plots of docs/benchmarks.md are made of the documents alone."""

import json

from bench.page import CAPTIONS, END, START, update_page
from bench.peers import missing
from bench.plots import BENCHMARK_OF
from bench.tables import count_text, machine_line, size_text, tables, time_text
from tests.bench.conftest import BENCHMARKS
from tests.house.sources import ROOT

LARGEST_PLOT_BYTES = 100_000


def test_the_page_gets_every_table_and_plot_between_its_marks(quick, tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in BENCHMARKS:
        (folder / f"{name}.json").write_text(json.dumps(quick(name)[0]))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nthe last run\n{END}\nafter\n")

    update_page(folder, page)
    once = page.read_text()
    update_page(folder, page)

    assert page.read_text() == once
    assert once.startswith("before\n")
    assert once.endswith(f"{END}\nafter\n")
    assert "the last run" not in once
    for name in BENCHMARKS:
        assert all(f"**{table.title}**" in once for table in tables(quick(name)[0]))
        assert machine_line(quick(name)[0]) in once
    for plot in BENCHMARK_OF:
        assert f"![{CAPTIONS[plot]}](benchmarks/{plot}.png)" in once
        assert 5_000 < (folder / f"{plot}.png").stat().st_size < LARGEST_PLOT_BYTES


def test_a_document_that_is_not_there_is_left_out(quick, tmp_path):
    (tmp_path / "storage.json").write_text(json.dumps(quick("storage")[0]))
    page = tmp_path / "page.md"
    page.write_text(f"{START}\n{END}")

    update_page(tmp_path, page)

    assert "condu bench storage" in page.read_text()
    assert "condu bench fusion" not in page.read_text()


def test_the_real_page_has_both_marks_once():
    text = (ROOT / "docs/benchmarks.md").read_text()

    assert text.count(START) == text.count(END) == 1


def test_a_peer_that_is_not_installed_has_a_row_that_says_so(quick):
    document = json.loads(json.dumps(quick("storage")[0]))
    rebuild = json.loads(json.dumps(quick("rebuild")[0]))
    for name in ("zipnn", "deltatensors"):
        document["storage"]["peers"][name] = rebuild["rebuild"]["peers"][name] = missing(name)

    rows = [row for table in (*tables(document), *tables(rebuild)) for row in table.rows]

    assert [row[0] for row in rows if "not installed" in row] == [
        "base, deltatensors 1 bit (lossy)",
        "ZipNN on whole checkpoints",
        "base, ZipNN on deltas",
        "deltatensors load_delta (1 bit, lossy)",
    ]


def test_quantities_read_as_people_say_them():
    assert [size_text(size) for size in (7, 1234, 605_143_284, 2.4e10)] == [
        "7 B",
        "1.23 kB",
        "605 MB",
        "24 GB",
    ]
    assert [time_text(time_s) for time_s in (2e-5, 0.0615, 1.25)] == ["20 us", "61.5 ms", "1.25 s"]
    assert [count_text(count) for count in (20, 151_277_313, 5e3, 2.6e9)] == ["20", "151.3 M", "5 k", "2.6 G"]
