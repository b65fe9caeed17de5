"""Ray Serve with model multiplexing, as its documents show it: `python -m bench.serving.peers.ray_server`.

One replica, which holds all experts once they were asked for.
"""

import base64
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve

from bench.serving.peers.plain_open_clip import OpenClipExpert, load_experts

MOST_EXPERTS = 8


@serve.deployment(max_ongoing_requests=64)
class Classify:
    """Answers for the expert that the header of a request names."""

    def __init__(self, experts: Mapping[str, Mapping[str, Any]]) -> None:
        self._experts = experts

    @serve.multiplexed(max_num_models_per_replica=MOST_EXPERTS)  # type: ignore[untyped-decorator]
    async def expert(self, task: str) -> OpenClipExpert:
        """The expert, loaded when it is first asked for."""
        return load_experts({task: self._experts[task]})[task]

    async def __call__(self, request: Any) -> dict[str, Any]:
        """The likeliest labels."""
        expert = await self.expert(serve.get_multiplexed_model_id())
        body = await request.json()
        pixels = expert.load(base64.b64decode(body["images"][0]))
        return {"predictions": expert.classify(pixels[None])[0]}


def main(orders: Mapping[str, Any], port: int) -> None:
    """Serve until told to stop."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment: Any = Classify
    serve.run(deployment.bind(orders["experts"]))
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
