from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog import Settings


def test_the_defaults_need_nothing_but_a_folder(monkeypatch):
    monkeypatch.chdir("/")
    settings = Settings()
    assert settings.catalog_url == "sqlite:////condu-data/condu.sqlite"
    assert settings.blob_place.url == Path("condu-data/blobs").absolute().as_uri()
    assert settings.scratch_dir == Path("condu-data/work")


def test_the_environment_sets_what_code_does_not(monkeypatch):
    monkeypatch.setenv("CONDU_DATA", "/srv/condu")
    monkeypatch.setenv("CONDU_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("CONDU_PORT", "")
    settings = Settings(max_labels=7)
    assert (settings.data, settings.max_attempts, settings.max_labels) == (Path("/srv/condu"), 5, 7)
    assert settings.port == 8000


def test_a_database_url_stands_before_the_folder():
    assert Settings(database_url="postgresql://db/condu").catalog_url == "postgresql://db/condu"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"beat_s": 20.0}, "lower CONDU_BEAT_S"),
        ({"lease_s": 0.0}, "greater than 0"),
        ({"poll_s": float("inf")}, "finite"),
        ({"max_attempts": 0}, "greater than or equal to 1"),
        ({"port": 70_000}, "less than or equal to 65535"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong, why):
    with pytest.raises(ValidationError, match=why):
        Settings(**wrong)


def test_every_setting_says_what_it_is_for():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
