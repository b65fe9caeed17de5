"""A job whose blobs were swept between its fold and its transaction folds again."""

from catalog.doomed import doom_blobs, note_removed
from tests.worker.installation import Installation
from worker.jobs import publishing


def test_a_job_whose_blobs_were_swept_before_it_named_them_folds_again(tmp_path, migrated_file, monkeypatch):
    monkeypatch.setattr(publishing, "SWEEP_PASSES_S", 0.2)
    with Installation.opened(tmp_path / "data", migrated_file) as installation:
        installation.catalog = installation.catalog.beside(installation.store.blobs.contains)
        job_id = installation.submit_import("imported", installation.upload_checkpoint())
        named = installation.blobs()
        swept = []

        def sweep_at_the_last_moment(progress):
            if progress["phase"] == "publish" and not swept:
                swept.extend(installation.blobs() - named)
                with installation.catalog.transaction() as session:
                    doom_blobs(session, swept, sweeper="a sweep")
                for digest in swept:
                    installation.store.blobs.delete(digest)
                with installation.catalog.transaction() as session:
                    note_removed(session, swept, sweeper="a sweep")

        result = installation.learn(job_id, on_report=sweep_at_the_last_moment)
        assert result["revision"] == 1
        assert swept
        assert set(swept) <= installation.blobs()
        assert any("folding again" in event["text"] for event in installation.events(job_id, "log"))
