"""litserve, as its documents show it: `python -m bench.serving.peers.lit_server ORDERS PORT`.

One worker, batches of up to 32, everything else as litserve has it. All experts are in the worker's memory.
"""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import litserve

from bench.serving.peers.plain_open_clip import OpenClipExpert, Picture, classify_pictures, load_experts

MAX_BATCH = 32
BATCH_TIMEOUT_S = 0.002
"""The service's own. With litserve's default of 0 its worker asks the queue in a busy loop."""


class ClassifyApi(litserve.LitAPI):  # type: ignore[misc]
    """Takes one image in base64 and the name of a task; answers with the likeliest labels."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
        self._orders = orders
        self._experts: dict[str, OpenClipExpert] = {}

    def setup(self, device: str) -> None:  # noqa: ARG002 - the CPU
        """Load every expert."""
        self._experts = load_experts(self._orders["experts"])

    def decode_request(self, request: dict[str, Any]) -> Picture:
        """The task and the image's tensor."""
        content = base64.b64decode(request["images"][0])
        return Picture(request["task"], self._experts[request["task"]].load(content))

    def batch(self, inputs: Sequence[Picture]) -> Sequence[Picture]:
        """As they are: they may be for different experts."""
        return inputs

    def predict(self, inputs: Sequence[Picture]) -> list[list[dict[str, Any]]]:
        """One forward for each expert that is asked."""
        return classify_pictures(self._experts, inputs)

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """An answer for each."""
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer as JSON."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        ClassifyApi(json.loads(Path(sys.argv[1]).read_text())), accelerator="cpu", workers_per_device=1
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
