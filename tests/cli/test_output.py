"""Results on stdout, everything else on stderr; progress as a bar or as lines."""

import io
import json

import pytest
import typer
from rich.console import Console

from cli import progress
from cli.answers import StorageAnswer
from cli.errors import CommandFailedError, JobFailedError
from cli.exit_codes import ExitCode
from cli.output import Output, command, is_number
from cli.progress import bytes_gauge, count_gauge, job_gauge, job_words
from cli.storage_table import storage_rows
from cli.units import as_bytes, as_duration, as_percent, short

STORAGE = {
    "base_bytes": 1_000_000,
    "unified_bytes": 900_000,
    "trigger_bytes": {"pets": 31_000, "digits": 30_000},
    "prototype_bytes": 2000,
    "buffer_bytes": 0,
    "marginal_bytes_per_task": 32_000,
    "full_checkpoint_bytes": 1_000_000,
    "total_bytes": 1_963_000,
}
JOB = {"step": 3, "steps": 10, "loss": 1.5, "images_per_s": 20.0, "eta_s": 90.0, "phase": "train"}


def on_console(*, terminal):
    output = Output(as_json=False)
    output.stderr = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return output


def said(output):
    return output.stderr.file.getvalue()


def test_json_is_one_document_and_nothing_for_people(capsys):
    output = Output(as_json=True)

    output.say("for people")
    output.table(("a",), [(1,)])
    output.result({"é": 1})

    assert json.loads(capsys.readouterr().out) == {"é": 1}


def test_people_get_no_json(capsys):
    output = Output(as_json=False)

    output.result({"a": 1})
    output.say("for [bold]people[/]")

    assert capsys.readouterr().out == "for people\n"


def test_an_error_says_what_why_and_what_next(capsys):
    with pytest.raises(typer.Exit) as caught, command(as_json=False):
        raise CommandFailedError("no [luck]", detail="none", remedy="try again", next_command="condu stats")

    assert caught.value.exit_code == ExitCode.FAILED
    assert capsys.readouterr().err == ("error: no [luck]\n  none\n  remedy: try again\n  next: condu stats\n")


def test_an_error_as_json_keeps_what_came_with_it(capsys):
    with pytest.raises(typer.Exit), command(as_json=True):
        raise JobFailedError("diverged", body={"job": {"id": "1"}})

    assert json.loads(capsys.readouterr().out) == {"error": {"job": {"id": "1"}, "title": "diverged"}}


def test_tables_set_numbers_to_the_right_and_words_to_the_left(capsys):
    Output(as_json=False).table(("name", "size"), [("a", "1.5 MB"), ("longer", None)])

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name      size", "a       1.5 MB", "longer       -"]


def test_quantities_are_told_from_names():
    assert all(is_number(cell) for cell in (3, "1,234", "93.4%", "18.7 MB", "-1.5", None))
    assert not any(is_number(cell) for cell in ("pets", "1st", "", "-"))


def test_a_terminal_sees_a_bar_with_the_words_of_the_job():
    output = on_console(terminal=True)

    with job_gauge(output, "learning pets") as show:
        show(JOB)

    assert "learning pets" in said(output)
    assert "3/10" in said(output)


def test_a_log_gets_a_line_now_and_then_with_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    output = on_console(terminal=False)

    with job_gauge(output, "learning pets") as show:
        show(JOB)
    with bytes_gauge(output, "uploading set.tar") as on_sent:
        on_sent(0, 2_000_000)
        on_sent(2_000_000, 2_000_000)
        on_sent(1000, -1)

    assert said(output).splitlines() == [
        "learning pets: 3 of 10, train, loss 1.500, 20 images/s, 1:30 min left",
        "uploading set.tar: 0 B of 2.0 MB",
        "uploading set.tar: 2.0 MB of 2.0 MB, 0 s left",
        "uploading set.tar: 1.0 kB",
    ]


def test_a_log_is_not_flooded():
    output = on_console(terminal=False)

    with count_gauge(output, "asking") as on_progress:
        for done in range(100):
            on_progress(done, 100)

    assert said(output) == ""


def test_a_job_that_has_just_begun_has_little_to_say():
    assert job_words({}, with_eta=True) == ""
    assert job_words(JOB, with_eta=True) == "train, loss 1.500, 20 images/s, 1:30 min left"


def test_quantities_are_written_as_people_read_them():
    assert [as_bytes(size) for size in (0, 999, 1500, 2_000_000, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
    assert [as_duration(s) for s in (0.4, 59, 75, 3660)] == ["0 s", "59 s", "1:15 min", "1:01 h"]
    assert (as_percent(93.44), as_percent(None)) == ("93.4%", "-")
    assert (short("ab" * 32), short(None)) == ("abababababab", "-")


def test_storage_is_told_part_by_part_and_against_whole_checkpoints():
    rows = dict(storage_rows(StorageAnswer.read(STORAGE)))

    assert rows["trigger of pets"] == "31.0 kB"
    assert rows["all of it"] == "2.0 MB"
    assert rows["base and 2 full checkpoints instead"] == "3.0 MB"


def test_a_model_without_tasks_has_nothing_to_compare():
    rows = dict(storage_rows(StorageAnswer.read({**STORAGE, "trigger_bytes": {}})))

    assert list(rows) == ["base", "unified delta"]
