"""The api's installations, for uploads that come over HTTP."""

from tests.api.conftest import fine_tuned, json_logs, learned, learned_folder, weights

__all__ = ["fine_tuned", "json_logs", "learned", "learned_folder", "weights"]
