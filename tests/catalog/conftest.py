from tests.catalog.fixtures import catalog, migrated_file, model, play, queue, settings, stage

__all__ = ["catalog", "migrated_file", "model", "play", "queue", "settings", "stage"]
